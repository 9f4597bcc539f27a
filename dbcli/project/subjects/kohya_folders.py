"""kohya's way to name a folder of photos: `40_sks dog` is forty repeats of photos of "sks dog"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"([0-9]{1,6})_(.*\S.*)")


@dataclass(frozen=True)
class KohyaFolder:
    """One such folder; `words` is what its photos show, the identifier first and the class noun after it."""

    path: Path
    repeats: int
    words: str

    def identifier_and_class(self, class_noun: str | None = None) -> tuple[str | None, str | None]:
        """Return both; a single word is the identifier where the class noun is known otherwise, else the noun."""
        first, _, rest = self.words.partition(" ")
        if rest:
            return first, rest
        return (first, None) if class_noun else (None, first)


def kohya_folder(path: Path) -> KohyaFolder | None:
    """Return what a folder's name says, None if it is not named kohya's way."""
    found = _NAME.fullmatch(path.name)
    return KohyaFolder(path, int(found[1]), " ".join(found[2].split())) if found and path.is_dir() else None


def kohya_folders(source: Path) -> list[KohyaFolder]:
    """Return the folder itself if it is named kohya's way, else those right inside of it, sorted by name."""
    source = source.expanduser().absolute()
    own = kohya_folder(source)
    if own is not None:
        return [own]
    if not source.is_dir():
        return []
    return [found for inner in sorted(source.iterdir()) if (found := kohya_folder(inner)) is not None]
