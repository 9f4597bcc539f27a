"""Bases from the Hugging Face hub: a revision found once, then only files of that revision, weights only.

Two small questions go to the hub (which commit is meant, which files it has), each with a short timeout, so a
machine without a way to the hub hears so within seconds. A complete copy in the cache is used without any question.
"""

import errno
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dbcli.deadline import within
from dbcli.diffusion.bases.folder import denoiser_config
from dbcli.diffusion.families.known import DENOISERS, FAMILIES, family_of_folder
from dbcli.diffusion.files.model_files import read_json
from dbcli.diffusion.files.weight_choice import chosen_weights, files_of
from dbcli.errors import BaseMissing, DreamboothError, Unreachable

REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
QUESTION_TIMEOUT_SECONDS = 3.0
DEADLINE_SECONDS = 4.0  # looking up a name has no timeout of its own where the name server is silent

# The parts of all families: what a repository does not have is not asked for.
PARTS = {name: part for family in reversed(FAMILIES) for name, part in family.parts.items()}
_TOKENIZER_FILES = (
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
CONFIG_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{name}/config.json" for name in PARTS),
    *(f"{part.tokenizer}/{file}" for part in PARTS.values() if part.tokenizer for file in _TOKENIZER_FILES),
)
WAYS_OUT = "Use --base tiny (it is part of this program), or give a local path: a diffusers folder or one model file."


def is_revision(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_repository(text: str) -> bool:
    return REPOSITORY_PATTERN.fullmatch(text) is not None and ".." not in text


def resolve_revision(repository: str, revision: str | None, *, offline: bool) -> str:
    """The 40-hex commit that a branch, a tag or nothing (the main branch) means now.

    Raises Unreachable when the hub cannot be asked and the cache does not know, BaseMissing when there is none.
    """
    if revision is not None and is_revision(revision):
        return revision
    if offline or _library_is_offline():
        cached = cached_folder(repository, revision)
        if cached is None or not is_revision(cached.name):
            raise _offline(repository)
        return cached.name
    return str(_ask(repository, revision).sha)


def download(
    repository: str,
    revision: str,
    *,
    offline: bool,
    on_download: Callable[[str], None] | None = None,
    variant: str = "",
) -> Path:
    """The folder of a repository at a 40-hex revision in the hub's cache, fetched if it is not complete there.

    Of a network's files those of the `variant` come first, as in `chosen_weights`. `on_download` hears one sentence
    before bytes are fetched. Raises Unreachable or BaseMissing.
    """
    cached = complete_folder(repository, revision, offline=offline, variant=variant)
    if cached is not None:
        return cached
    wanted = wanted_files((sibling.rfilename for sibling in _ask(repository, revision).siblings), variant)
    if on_download is not None:
        on_download(f"Downloading {repository} at {revision[:12]} ({len(wanted)} files) …")
    return _fetch(repository, revision, wanted)


def wanted_files(available: Iterable[str], variant: str = "") -> list[str]:
    """Of a repository's files the configurations and, for each network, its preferred weights, in shards or not."""
    present = set(available)
    wanted = [name for name in CONFIG_FILES if name in present]
    for component, part in PARTS.items():
        inside = (name.removeprefix(f"{component}/") for name in present if name.startswith(f"{component}/"))
        choice = chosen_weights(part.stems, inside, variant)
        if choice is not None:
            listed = choice.files if choice.index is None else (choice.index, *choice.files)
            wanted += [f"{component}/{name}" for name in listed]
    return wanted


def complete_folder(repository: str, revision: str, *, offline: bool, variant: str = "") -> Path | None:
    """The folder of a repository at a 40-hex revision that is complete in the cache; no question is asked of the hub.

    Offline, and where they are the `variant` that is wanted, rounded files are complete too; else they are no
    substitute for the whole.
    Raises Unreachable naming what is lacking where it cannot be fetched either.
    """
    folder, is_offline = cached_folder(repository, revision), offline or _library_is_offline()
    lacking = None if folder is None else _lacking(folder, variant, half_precision_counts=is_offline)
    if folder is not None and lacking is None:
        return folder
    if not is_offline:
        return None
    if folder is None:
        raise _offline(repository)
    raise Unreachable(
        f"Only a part of {repository} is on this machine ({folder} lacks {lacking}), and --offline forbids a download.",
        hint="the same command without --offline downloads the rest",
    )


def download_configs(repository: str, revision: str) -> Path:
    """The folder with a repository's configurations, kilobytes of JSON. Raises Unreachable or BaseMissing."""
    present = [sibling.rfilename for sibling in _ask(repository, revision).siblings]
    return _fetch(
        repository, revision, [name for name in present if name.endswith(("config.json", "model_index.json"))]
    )


def _lacking(folder: Path, variant: str, *, half_precision_counts: bool) -> str | None:
    """The first part of a base that a folder does not have, None where it has all."""
    stated = denoiser_config(folder)
    if stated is None:
        return f"{DENOISERS[0]}/config.json"
    family = family_of_folder(read_json(stated))
    for name in ("scheduler/scheduler_config.json", *(f"{part}/config.json" for part in family.parts)):
        if not (folder / name).is_file():
            return name
    for encoder in family.encoders:
        tokenizer = family.parts[encoder].tokenizer
        if not any((folder / tokenizer / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            return f"{tokenizer}/vocab.json"
    for component, part in family.parts.items():
        names = [path.name for path in (folder / component).iterdir() if path.is_file()]
        choice = chosen_weights(part.stems, names, variant)
        if choice is None or (choice.is_rounded and choice.variant != variant and not half_precision_counts):
            return f"the weights of {component}"
        try:
            files_of(folder / component, choice)
        except DreamboothError:
            return f"shards of {component}"
    return None


def _library_is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def cached_folder(repository: str, revision: str | None) -> Path | None:
    """The folder with what is in the hub's cache of a repository, if anything is."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except Exception:  # nothing in the cache is the ordinary case, and the library has many ways to say so
        return None


def _ask(repository: str, revision: str | None) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    def question() -> Any:
        return HfApi().model_info(repository, revision=revision, timeout=QUESTION_TIMEOUT_SECONDS)

    try:
        return within(DEADLINE_SECONDS, question)
    except GatedRepoError as error:
        raise BaseMissing(
            f"{repository} is gated: its terms have to be accepted first.",
            hint=f"Accept them at https://huggingface.co/{repository}, then `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise BaseMissing(f"{repository} has no revision {revision}.") from error
    except RepositoryNotFoundError as error:
        raise BaseMissing(
            f"The hub has no public model {repository}, and there is no folder of that name here.", hint=WAYS_OUT
        ) from error
    except Exception as error:  # sockets, proxies, certificates and the hub itself fail in many types
        raise unreachable(repository, error) from error


def _fetch(repository: str, revision: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files, max_workers=4))
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC:  # the machine's fault, and told as such higher up
            raise
        raise unreachable(repository, error) from error
    finally:
        enable_progress_bars()


def unreachable(what: str, error: Exception, hint: str = WAYS_OUT) -> Unreachable:
    """That the hub did not answer a question about something, with the first line of what went wrong."""
    reason = (str(error).split("\n")[0] or type(error).__name__)[:160]
    return Unreachable(f"The hub could not be reached for {what} ({reason}).", hint=hint)


def _offline(repository: str) -> Unreachable:
    return Unreachable(
        f"{repository} is not on this machine, neither as a folder nor in the hub's cache, and --offline forbids a "
        "download.",
        hint=WAYS_OUT,
    )
