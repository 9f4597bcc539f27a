"""Files that a command line names, looked for before anything is loaded."""

from __future__ import annotations

import difflib
from pathlib import Path

from dbcli.errors import MissingError
from dbcli.project.files.names import printable


def require_file(path: Path, what: str) -> None:
    """Raises MissingError, with the nearest name beside it, where a file is not there."""
    if path.is_file():
        return
    said = printable(str(path), 200)
    if path.is_dir():
        raise MissingError(f"{said} is a folder, not {what}.", hint="name the file in it")
    beside = [one.name for one in path.parent.iterdir() if one.is_file()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    guess = f" Did you mean {printable(str(path.with_name(near[0])), 200)}?" if near else ""
    raise MissingError(f"There is no {what.removeprefix('a ').removeprefix('an ')} at {said}.{guess}")
