"""Bases from the Hugging Face hub: a revision found once, then only files of that revision, weights only.

Two small questions go to the hub (which commit is meant, which files it has), each with a short timeout, so a
machine without a way to the hub hears so within seconds. A complete copy in the cache is used without any question.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dbcli.diffusion.folder import WEIGHT_NAMES
from dbcli.errors import BaseMissing, Unreachable

REVISION_PATTERN = re.compile(r"[0-9a-f]{40}")
REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
QUESTION_TIMEOUT_SECONDS = 3.0
DEADLINE_SECONDS = 4.0  # looking up a name has no timeout of its own where the name server is silent

CONFIG_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
)
NEEDED_FILES = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
)
WAYS_OUT = "Use --base tiny (it is part of this program), or give a local path: a diffusers folder or one model file."


def is_revision(text: str) -> bool:
    return REVISION_PATTERN.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    return REPOSITORY_PATTERN.fullmatch(text) is not None and ".." not in text


def resolve_revision(repository: str, revision: str | None, *, offline: bool) -> str:
    """The 40-hex commit that a branch, a tag or nothing (the main branch) means now.

    Raises Unreachable when the hub cannot be asked and the cache does not know, BaseMissing when there is none.
    """
    if revision is not None and is_revision(revision):
        return revision
    if offline or _library_is_offline():
        cached = _cached_folder(repository, revision)
        if cached is None or not is_revision(cached.name):
            raise _offline(repository)
        return cached.name
    return str(_ask(repository, revision).sha)


def download(
    repository: str, revision: str, *, offline: bool, on_download: Callable[[str], None] | None = None
) -> Path:
    """The folder of a repository at a 40-hex revision in the hub's cache, fetched if it is not complete there.

    `on_download` hears one sentence before bytes are fetched. Raises Unreachable or BaseMissing.
    """
    cached = _cached_folder(repository, revision)
    if cached is not None and _is_complete(cached):
        return cached
    if offline or _library_is_offline():
        if cached is not None and _is_complete(cached, half_precision_counts=True):
            return cached
        raise _offline(repository)
    wanted = wanted_files(sibling.rfilename for sibling in _ask(repository, revision).siblings)
    if on_download is not None:
        on_download(f"Downloading {repository} at {revision[:12]} ({len(wanted)} files) …")
    return _fetch(repository, revision, wanted)


def wanted_files(available: Iterable[str]) -> list[str]:
    """Of a repository's files the configurations and, for each network, its one preferred weights file."""
    present = set(available)
    wanted = [name for name in CONFIG_FILES if name in present]
    for component, choices in WEIGHT_NAMES.items():
        wanted += [f"{component}/{name}" for name in choices if f"{component}/{name}" in present][:1]
    return wanted


def _is_complete(folder: Path, *, half_precision_counts: bool = False) -> bool:
    """Whether a base can be loaded; a cache that only holds the rounded fp16 files is no substitute for the whole."""

    def has_weights(component: str) -> bool:
        names = (name for name in WEIGHT_NAMES[component] if half_precision_counts or ".fp16." not in name)
        return any((folder / component / name).is_file() for name in names)

    has_tokenizer = any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    has_configs = all((folder / name).is_file() for name in NEEDED_FILES)
    return has_tokenizer and has_configs and all(has_weights(component) for component in WEIGHT_NAMES)


def _library_is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cached_folder(repository: str, revision: str | None) -> Path | None:
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
        return before_deadline(question)
    except GatedRepoError as error:
        raise BaseMissing(
            f"{repository} asks to be visited once: its owner wants the terms accepted.",
            hint=f"Accept them at https://huggingface.co/{repository}, then `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise BaseMissing(f"{repository} has no revision {revision}.") from error
    except RepositoryNotFoundError as error:
        raise BaseMissing(f"The hub has no public model {repository}.", hint=WAYS_OUT) from error
    except Exception as error:  # sockets, proxies, certificates and the hub itself fail in many types
        raise _unreachable(repository, error) from error


def before_deadline(question: Callable[[], Any]) -> Any:
    """The answer, or TimeoutError after `DEADLINE_SECONDS`; the thread that still waits ends with the program."""
    outcome: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def ask() -> None:
        try:
            outcome.put((True, question()))
        except Exception as error:  # handed over to the thread that waits
            outcome.put((False, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        answered, value = outcome.get(timeout=DEADLINE_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {DEADLINE_SECONDS:g} s") from None
    if not answered:
        raise value
    return value


def _fetch(repository: str, revision: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files, max_workers=4))
    except OSError as error:
        if getattr(error, "errno", None) == 28:  # ENOSPC is the machine's fault, and told as such higher up
            raise
        raise _unreachable(repository, error) from error
    except Exception as error:
        raise _unreachable(repository, error) from error
    finally:
        enable_progress_bars()


def _unreachable(repository: str, error: Exception) -> Unreachable:
    reason = (str(error).split("\n")[0] or type(error).__name__)[:160]
    return Unreachable(f"The hub could not be reached for {repository} ({reason}).", hint=WAYS_OUT)


def _offline(repository: str) -> Unreachable:
    return Unreachable(f"{repository} is not on this machine, and --offline forbids a download.", hint=WAYS_OUT)
