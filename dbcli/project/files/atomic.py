"""Writes that a crash cannot tear: a temporary file in the same folder, fsync, rename, folder fsync."""

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbcli.errors import DiskFull

TEMPORARY_SUFFIX = ".tmp"
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it exactly as it was. The mode follows the umask.

    Raises DiskFull with the bytes needed and free; any other OSError passes through.
    """
    temporary = path.with_name(temporary_name(path.name))
    with disk_full_explained(path, needed_bytes=len(data)):
        try:
            # Not `tempfile`, whose files are 0600 whatever the umask says.
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, line ends as they are. See `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, obj: Any) -> None:
    """Replace `path` by `obj` as indented JSON; NaN and infinities become null. See `write_bytes`."""
    write_text(path, json_text(obj, indent=2) + "\n")


def json_text(obj: Any, indent: int | None = None) -> str:
    """Return `obj` as JSON that every reader accepts: NaN and infinities, unknown to JSON, are null."""
    return json.dumps(_finite(obj), indent=indent, ensure_ascii=False, allow_nan=False)


def append_line(path: Path, text: str) -> None:
    """Add one line to `path` in a single write, so that lines of several processes never mix.

    If an earlier writer died in the middle of its line, that half line is ended first. Raises ValueError
    for a text with a line end in it, DiskFull where the disk took only a part.
    """
    if "\n" in text or "\r" in text:
        raise ValueError("append_line takes one line, without its line end")
    line = (text + "\n").encode("utf-8")
    with disk_full_explained(path, needed_bytes=len(line)), _opened_to_append(path) as descriptor:
        if _ends_in_a_half_line(descriptor):
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit_folder(temporary: Path, final: Path) -> None:
    """Make `temporary` appear as `final` in one step, after every file and folder in it has reached the disk.

    Both lie in the same folder. Raises FileExistsError if `final` already exists.
    """
    with disk_full_explained(final):
        for folder, _, files in os.walk(temporary):
            for name in files:
                sync_file(Path(folder, name))
            sync_folder(Path(folder))
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        os.rename(temporary, final)
    sync_folder(final.parent)


@contextlib.contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `final`, to be filled for `commit_folder`; removed otherwise."""
    folder = final.with_name(temporary_name(final.name))
    with disk_full_explained(final):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a crash leaves it whole or hidden, never half there under its name."""
    doomed = folder.with_name(temporary_name(folder.name))
    os.rename(folder, doomed)
    sync_folder(folder.parent)
    # Another process may be sweeping leftovers: it is gone either way.
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete what killed writers of `name`, or of anything, left in `folder`; only for a holder of its lock."""
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(f".{name[:100]}") and entry.name.endswith(TEMPORARY_SUFFIX):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """Return a hidden, unused name for the temporary twin of `name`."""
    return f".{name[:100]}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system can say so (Windows cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and container file systems have no fsync for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_full_explained(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Turn the system's "no space left" inside the block into DiskFull, with the bytes needed and free."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        needed = f"{needed_bytes:,} bytes" if needed_bytes else "more space"
        raise DiskFull(
            f"The disk is full: {path} needs {needed}, {_free_bytes(path):,} bytes are free.",
            hint="free some space, then run the same command again",
        ) from error


@contextlib.contextmanager
def _opened_to_append(path: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if sys.platform != "win32":
            import fcntl

            # Without it, another writer's line could be seen half written and be taken for a dead one's.
            # The system frees it with the descriptor; not every network file system has it.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _ends_in_a_half_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    if not size:
        return False
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) != b"\n"


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0


def _finite(obj: Any) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, dict):
        return {str(key): _finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_finite(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    return obj
