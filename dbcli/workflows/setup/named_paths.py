"""Files and folders that a command line names, looked at before anything is loaded."""

import tempfile
from pathlib import Path

from dbcli.errors import MachineError, MissingError, UsageError
from dbcli.hints import nearest
from dbcli.project.files.names import printable

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


def require_file(path: Path, what: str) -> None:
    """Raises MissingError, with the nearest name beside it, where a file does not exist."""
    if path.is_file():
        return
    said = printable(str(path), 200)
    if path.is_dir():
        raise MissingError(f"{said} is a folder, not {what}.", hint="name the file in it")
    beside = [one.name for one in path.parent.iterdir() if one.is_file()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    guess = f" Did you mean {printable(str(path.with_name(near)), 200)}?" if near else ""
    raise MissingError(f"There is no {what.removeprefix('a ').removeprefix('an ')} at {said}.{guess}")


def check_output(out: Path | None) -> None:
    """Raises UsageError where --out names an image file: images are named by their recipes, in a folder."""
    if out is None or out.is_dir() or out.suffix.lower() not in _IMAGE_SUFFIXES:
        return
    raise UsageError(
        f"--out takes a folder, but {printable(str(out))} looks like a file.", hint=f"--out {out.with_suffix('')}"
    )


def check_writable(folder: Path) -> None:
    """Raises UsageError where a folder cannot be made, MachineError where nothing can be written; makes nothing."""
    here = folder.expanduser().absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    if not here.is_dir():
        raise UsageError(f"{folder} cannot be a folder: {here} is a file.", hint="--out with another folder")
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MachineError(
            f"Nothing can be written to {folder}: {reason} ({here}).", hint="--out with another folder"
        ) from error
