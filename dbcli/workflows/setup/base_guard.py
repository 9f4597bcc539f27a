"""The files of a project's base, remembered by content, so that one which changed is named before it is used."""

from collections.abc import Sequence
from pathlib import Path

from dbcli.errors import Refused
from dbcli.project.files.atomic import sha256_of, write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.records import json_or_nothing

# A file's size, its time of change in ns, and the sha256 of its bytes.
State = tuple[int, int, str]


def check_base_files(layout: Layout, base_hash: str) -> None:
    """Raises Refused naming the first file of the remembered base that has other bytes.

    One that is gone is passed over: a base may move as a whole, and what it lacks there its loader says.
    """
    for name, state in _known(layout, base_hash).items():
        path = Path(name)
        if path.is_file() and _state(path, state)[2] != state[2]:
            raise Refused(
                f"{path} has changed since this project was created; its class images and runs would no longer fit.",
                hint="put the old file back, or create a new project, or, if the change is meant, "
                f"delete {layout.base_files_file} and base_hash in {layout.settings_file}",
            )


def remember_base_files(layout: Layout, base_hash: str, files: Sequence[Path]) -> None:
    """Writes down the state of a base's files; those that are remembered unchanged are not read again."""
    known = _known(layout, base_hash)
    states = {str(path): _state(path, known.get(str(path))) for path in files}
    if states != known:
        layout.cache_dir.mkdir(parents=True, exist_ok=True)
        write_json(layout.base_files_file, {"schema": 1, "base_hash": base_hash, "files": states})


def _known(layout: Layout, base_hash: str) -> dict[str, State]:
    table = json_or_nothing(layout.base_files_file)
    try:
        states = {str(name): (int(size), int(time), str(sha)) for name, (size, time, sha) in table["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return states if table.get("base_hash") == base_hash else {}


def _state(path: Path, known: State | None) -> State:
    status = path.stat()
    # Reading gigabytes at every command would cost seconds: a file with its old size and time is taken as it was.
    if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
        return known
    return status.st_size, status.st_mtime_ns, sha256_of(path)
