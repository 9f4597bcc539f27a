"""Checkpoint folders of a run: complete ones, told by a manifest that is written last, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dbcli.errors import DiskFull
from dbcli.project.atomic import (
    commit_folder,
    remove_folder,
    remove_leftovers,
    sha256_of,
    sync_file,
    temporary_folder,
    write_json,
)
from dbcli.project.layout import Layout

MANIFEST_NAME = "manifest.json"
FOLDER_PATTERN = re.compile(r"step-(\d{6,9})")


def save_checkpoint(layout: Layout, run: str, step: int, write: Callable[[Path], None], *, keep: int) -> Path:
    """Lets `write` fill a hidden folder and makes it the run's checkpoint of `step`; then old ones beyond `keep` go.

    Raises DiskFull, with everything that was there before still there.
    """
    folder = layout.checkpoints_dir(run)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    final = folder / f"step-{step:06d}"
    if is_complete(final):
        return final
    if final.exists():
        remove_folder(final)
    _check_space(folder)
    with temporary_folder(final) as temporary:
        write(temporary)
        files = sorted(path for path in temporary.iterdir() if path.is_file())
        for path in files:
            # Some writers make files that only their owner may read; a run follows the umask like other files.
            path.chmod(0o666 & ~_umask())
            sync_file(path)
        hashes = {path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files}
        write_json(temporary / MANIFEST_NAME, {"schema": 1, "step": step, "files": hashes})
        commit_folder(temporary, final)
    for old in checkpoints(layout, run)[:-keep]:
        remove_folder(old)
    return final


def checkpoints(layout: Layout, run: str) -> list[Path]:
    """The run's folders that look like checkpoints, oldest first; whether they are whole is is_complete's matter."""
    folder = layout.checkpoints_dir(run)
    if not folder.is_dir():
        return []
    found = [(int(match.group(1)), path) for path in folder.iterdir() if (match := FOLDER_PATTERN.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def newest_checkpoint(layout: Layout, run: str) -> Path | None:
    """The newest complete checkpoint: torn and changed ones are passed over."""
    return next((path for path in reversed(checkpoints(layout, run)) if is_complete(path)), None)


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a manifest and every file it names, byte for byte."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        files = manifest["files"]
        return bool(files) and all(
            (folder / name).stat().st_size == entry["bytes"] and sha256_of(folder / name) == entry["sha256"]
            for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _check_space(folder: Path) -> None:
    """Raises DiskFull before writing where the last checkpoint already would not fit again."""
    before = [path for path in folder.glob("step-*") if path.is_dir()]
    needed = max((sum(file.stat().st_size for file in path.iterdir()) for path in before), default=0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"A checkpoint needs {needed:,} bytes, {free:,} are free in {folder}.",
            hint="free some space, then dreambooth train --resume",
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
