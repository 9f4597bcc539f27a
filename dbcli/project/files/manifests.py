"""Folders that carry the sha256 of every file in them, in a manifest that is written last."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from dbcli.errors import DiskFull
from dbcli.project.files.atomic import (
    commit_folder,
    disk_full_explained,
    json_text,
    remove_folder,
    sha256_of,
    sync_file,
    temporary_folder,
    write_text,
)
from dbcli.project.files.names import printable

MANIFEST_NAME = "manifest.json"


def write_whole(final: Path, write: Callable[[Path], None], *, needed_bytes: int, **facts: Any) -> None:
    """Lets `write` fill a hidden folder, then makes it `final`, manifest and all, in the place of what was there.

    Raises DiskFull; before the first byte where the disk has not `needed_bytes` free.
    """
    if final.exists():
        remove_folder(final)
    _check_space(final.parent, needed_bytes)
    with disk_full_explained(final, needed_bytes), temporary_folder(final) as folder:
        write(folder)
        write_manifest(folder, **facts)
        commit_folder(folder, final)


def write_manifest(folder: Path, **facts: Any) -> None:
    """Flushes every file of a folder, at any depth, and lists them with size and sha256 in its manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST_NAME)
    mode = 0o666 & ~_umask()
    for path in files:
        # Some writers make files that only their owner may read; what belongs to a run follows the umask.
        path.chmod(mode)
        sync_file(path)
    table = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files
    }
    write_text(folder / MANIFEST_NAME, _sealed({"schema": 1, **facts, "files": table}))


def drop_files(folder: Path, names: Collection[str]) -> None:
    """Removes files of a sound folder and their lines in its manifest; cut short, the folder is sound all the same."""
    table = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    table.pop("seal")
    table["files"] = {name: entry for name, entry in table["files"].items() if name not in names}
    write_text(folder / MANIFEST_NAME, _sealed(table))
    for name in names:
        (folder / name).unlink(missing_ok=True)


def first_fault(folder: Path) -> str | None:
    """What is wrong with a folder, naming the file; None if its manifest and all files in it are sound."""
    manifest = folder / MANIFEST_NAME
    try:
        text = manifest.read_text(encoding="utf-8")
        table = json.loads(text)
        entries = [(str(name), int(entry["bytes"]), str(entry["sha256"])) for name, entry in table["files"].items()]
        table.pop("seal")
    except OSError:
        return f"{manifest} is missing"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{manifest} is damaged"
    if text != _sealed(table):
        return f"{manifest} is damaged"
    if not entries:
        return f"{manifest} names no file"
    return next((fault for entry in entries if (fault := _file_fault(folder, *entry))), None)


def _sealed(table: dict[str, Any]) -> str:
    """The manifest's text; its seal is over the rest of it, so that its own damage shows as well."""
    seal = hashlib.sha256(json_text(table).encode("utf-8")).hexdigest()
    return json_text({**table, "seal": seal}, indent=2) + "\n"


def _file_fault(folder: Path, name: str, size: int, sha256: str) -> str | None:
    path = folder / name
    if name.startswith("/") or ".." in name.split("/"):
        return f"{folder / MANIFEST_NAME} names {printable(name)}, which is not in its folder"
    try:
        found = path.stat().st_size
        if found != size:
            return f"{path} has {found:,} bytes instead of {size:,}"
        return None if sha256_of(path) == sha256 else f"{path} has changed since it was written"
    except OSError:
        return f"{path} is missing"


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskFull(
            f"The disk is full: {folder} needs {needed_bytes:,} bytes, {free:,} bytes are free.",
            hint="free some space, then run the same command again",
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
