"""Who else computes on this machine: commands that share it slow each other, and say so."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import DreamboothError
from dbcli.project.files.locks import hold, holder, is_held
from dbcli.workflows.progress import Progress

_reported: list[Path] = []
_ours: list[Path] = []


@contextmanager
def computing(what: str, progress: Progress, group: ProcessGroup = SINGLE) -> Iterator[None]:
    """Tells, once, of a command that computes on this machine as well, and lets later ones tell of this one.

    `what` is what this command does: "the run 0003-dog". Where no note of it can be kept, nothing is told.
    """
    if _ours or not group.is_main:  # a run inside a sweep: its command has told already
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError, DreamboothError):
            folder = _folder()
            for other in [] if _reported else _others(folder)[:1]:
                _reported.append(other)
                progress.note(f"Another run is computing on this machine, so both take longer: {holder(other)}.")
            own = folder / f"{_host()}-{os.getpid()}.lock"
            stack.enter_context(hold(own, what))
            _ours.append(own)
            stack.callback(_leave, own)
        yield


def _leave(own: Path) -> None:
    _ours.remove(own)


def _others(folder: Path) -> list[Path]:
    """The notes of other live processes on this machine; those of dead ones are cleared away."""
    found = []
    own = re.compile(re.escape(_host()) + r"-\d+\.lock")
    for path in sorted(one for one in folder.iterdir() if own.fullmatch(one.name)):
        if is_held(path):
            found.append(path)
        else:
            for file in folder.glob(f"{path.name}*"):
                file.unlink(missing_ok=True)
    return found


def _folder() -> Path:
    from platformdirs import user_cache_path

    folder = user_cache_path("dreambooth", appauthor=False) / "computing"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _host() -> str:
    """The machine's name: a home folder may be shared by several."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", platform.node()) or "machine"
