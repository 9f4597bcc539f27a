"""Where a judge's weights are: a local file or folder, the hub's cache, or the hub; and what to say where they lack."""

import hashlib
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dbcli.deadline import within
from dbcli.errors import JudgeMissing

HUB_DEADLINE_SECONDS = 8.0
# What describes photos in words; here so that it can be looked for without loading torch. The second is only used where
# it is on this machine already.
FLORENCE = "florence-community/Florence-2-base"
BLIP = "Salesforce/blip-image-captioning-base"
# Best first: open_clip's own name, then what timm and transformers write.
WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.pth",
)
# What the loaders of four libraries raise for a file that is cut off, of another model, or no weights at all.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
# Of weights in several files, which transformers puts together.
SHARDS_INDEX, SHARDS = "model.safetensors.index.json", "model-*.safetensors"
_SMALL_FILES = ("*.json", "*.txt", "*.jinja")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


# What is downloaded and how many bytes it has, where the hub says so -> said to a person.
OnDownload = Callable[[str, int | None], None]


@dataclass(frozen=True)
class JudgeFiles:
    """A judge's weights on this machine: the file, its folder when that describes the model, and where it came from."""

    weights: Path
    folder: Path | None
    source: str
    revision: str | None


def ways_out(judge: str) -> str:
    """What a person can type when a judge is missing."""
    return (
        "--judge tiny (embedded, no download), or a local copy in dreambooth.yaml:\n"
        f"  judges:\n    {judge}: /path/to/folder-or-file"
    )


def locate(
    judge: str, source: str, *, offline: bool, shards: bool = False, on_download: OnDownload | None = None
) -> JudgeFiles:
    """Find a judge's weights at `source`: an existing path, or a hub id with an optional @revision.

    With `shards` weights may be in several files, and their index stands for them. `on_download` is told before
    anything is downloaded.
    Raises JudgeMissing with the ways out; a hub that does not answer costs at most HUB_DEADLINE_SECONDS.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return JudgeFiles(path, None, str(path), None)
    if path.is_dir():
        return JudgeFiles(_weights_in(path, judge, shards=shards), path, str(path), None)
    if source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise JudgeMissing(f"The judge {judge!r} has no file or folder at {source}.", hint=ways_out(judge))
    return _from_hub(judge, source, offline, shards=shards, on_download=on_download)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(files: JudgeFiles, judge: str, what: str) -> Iterator[None]:
    """Inside it what is no sound file, or another model's, becomes JudgeMissing: "could not be read as" `what`."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:240]
        raise JudgeMissing(f"{files.weights} could not be read as {what}: {reason}", hint=ways_out(judge)) from error


def _weights_in(folder: Path, judge: str, *, shards: bool) -> Path:
    for name in (*WEIGHT_NAMES, *([SHARDS_INDEX] if shards else [])):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    raise JudgeMissing(
        f"{folder} contains no weights for the judge {judge!r} (looked for {', '.join(WEIGHT_NAMES)}).",
        hint=ways_out(judge),
    )


def _from_hub(judge: str, source: str, offline: bool, *, shards: bool, on_download: OnDownload | None) -> JudgeFiles:
    import huggingface_hub

    repository, _, revision = source.partition("@")
    cached = _from_cache(huggingface_hub, judge, repository, revision or None, shards=shards)
    if cached is not None:
        return cached
    if offline:
        raise JudgeMissing(
            f"The judge {judge!r} ({source}) is not on this machine and --offline forbids fetching it.",
            hint=ways_out(judge),
        )
    try:
        api = huggingface_hub.HfApi()
        info = within(
            HUB_DEADLINE_SECONDS,
            lambda: api.model_info(
                repository,
                revision=revision or None,
                timeout=HUB_DEADLINE_SECONDS / 2,
                files_metadata=on_download is not None,
            ),
        )
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
        known = (*WEIGHT_NAMES, *([SHARDS_INDEX] if shards else []))
        weights = next((name for name in known if name in sizes), None)
        if weights is None:
            raise JudgeMissing(f"{source} on the hub contains none of {', '.join(WEIGHT_NAMES)}.", hint=ways_out(judge))
        wanted = SHARDS if weights == SHARDS_INDEX else weights
        if on_download is not None:
            found = [size for name, size in sizes.items() if fnmatch(name, wanted)]
            known_sizes = [size for size in found if size is not None]
            on_download(f"{repository}@{info.sha}", sum(known_sizes) if len(known_sizes) == len(found) else None)
        folder = huggingface_hub.snapshot_download(
            repository, revision=info.sha, allow_patterns=[wanted, *_SMALL_FILES]
        )
    except JudgeMissing:
        raise
    except Exception as error:  # each client and proxy has its own; to a person they all mean the same
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise JudgeMissing(
            f"The judge {judge!r} ({source}) could not be fetched from the hub: {reason}",
            hint=ways_out(judge),
        ) from error
    return JudgeFiles(Path(folder) / weights, Path(folder), repository, info.sha)


def _from_cache(hub: Any, judge: str, repository: str, revision: str | None, *, shards: bool) -> JudgeFiles | None:
    """The snapshot fetched earlier, whole; None when there is none."""
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
        weights = _weights_in(folder, judge, shards=shards)
    except (OSError, ValueError, JudgeMissing):
        return None
    return JudgeFiles(weights, folder, repository, folder.name)
