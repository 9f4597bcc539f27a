"""Paths as terminals write them when files are dropped there: quoted, with escaped spaces, as URLs, several at once."""

import os
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit


def dropped_paths(answer: str) -> list[Path]:
    """The paths in an answer: the answer itself where that is there, else what it quotes or escapes."""
    text = answer.strip()
    plain = Path(text).expanduser()
    if not text or plain.exists():
        return [plain]
    try:
        # On Windows a backslash separates folders; it escapes nothing.
        words = shlex.split(text.replace("\\", "/") if os.name == "nt" else text)
    except ValueError:
        return [plain]
    paths = [_of_url(word) for word in words]
    # "my photos" without quotes is one folder that is not there, and not two.
    return paths if len(paths) == 1 or (paths and all(path.exists() for path in paths)) else [plain]


def dropped_path(answer: str) -> Path:
    """The one path in an answer; see `dropped_paths`."""
    paths = dropped_paths(answer)
    return paths[0] if len(paths) == 1 else Path(answer.strip()).expanduser()


def _of_url(word: str) -> Path:
    return Path(unquote(urlsplit(word).path) if word.startswith("file://") else word).expanduser()
