"""What a person can do about a model file that is damaged."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def is_in_hub_cache(path: Path) -> bool:
    """Whether a file is a link into the hub's cache, which keeps what it downloaded under `blobs/`."""
    return path.is_symlink() and path.resolve().parent.name == "blobs"


def how_to_get_again(path: Path) -> str:
    """The next step about a damaged file; one in the hub's cache is downloaded again once the damaged copy is gone."""
    if is_in_hub_cache(path):
        # Without its link alone the damaged copy would be linked to once more.
        command = "del" if os.name == "nt" else "rm"
        return f"{command} {shlex.quote(str(path.resolve()))}, then the same command, which downloads it again"
    return "Download or copy it again; it may be cut short."
