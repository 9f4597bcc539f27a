"""Photos in: what a person hands over, decoded safely, turned upright, in plain sRGB, without EXIF.

Whatever cannot be used is reported by file and reason, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import PhotoError
from dbcli.project.files.names import printable
from dbcli.project.images.pixels import NeedsPackage, NotUsable, decode, is_modern, to_png
from dbcli.project.subjects.captions import (
    CAPTION_SUFFIXES,
    CaptionFiles,
    is_caption_table,
    read_caption,
    read_caption_tables,
)

if TYPE_CHECKING:
    from PIL import Image

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MODERN_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".avif"})
MAX_BYTES = 200_000_000
MAX_FILES = 20_000
_STRAY_FOLDERS = frozenset({"__MACOSX", "__pycache__"})


@dataclass(frozen=True)
class Photo:
    """One usable photo, ready to be stored."""

    source: Path
    png: bytes
    sha256: str
    width: int
    height: int
    caption: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def image(self) -> Image.Image:
        """The picture, mode RGB, upright, sRGB, decoded anew from `png`."""
        from PIL import Image

        with Image.open(io.BytesIO(self.png), formats=("PNG",)) as opened:
            return opened.convert("RGB")


@dataclass(frozen=True)
class Skipped:
    """A file that was left out. `stray`: it never claimed to be a photo (.DS_Store, notes.txt).

    `needs` is the package that could read it; such files are told together, however many they are.
    """

    path: Path
    reason: str
    stray: bool = False
    needs: str | None = None

    @property
    def text(self) -> str:
        """One line for a person, safe to print."""
        return f"{printable(str(self.path), 200)}: {self.reason}"


def reasons(skipped: Sequence[Skipped]) -> list[str]:
    """Why files that claimed to be photos were left out: a line each, and one for all that lack the same package."""
    lines = [one.text for one in skipped if not one.stray and one.needs is None]
    for package in sorted({one.needs for one in skipped if one.needs is not None}):
        files = [one for one in skipped if one.needs == package]
        many = f"{len(files)} files, {printable(files[0].path.name)} among them" if len(files) > 1 else None
        lines.append(f"{many or printable(str(files[0].path), 200)}: {files[0].reason}")
    return lines


def walk_photos(sources: Sequence[Path]) -> Iterator[Photo | Skipped]:
    """Yield every usable photo among files and folders, and every file left out, in the order of `list_files`.

    They come one by one, so that a thousand photos need the memory of one. Raises PhotoError where a source is not
    there at all. No usable photo is no error here.
    """
    files = list_files(sources)
    photos = {path.with_suffix("") for path in files if path.suffix.lower() in PHOTO_SUFFIXES | MODERN_SUFFIXES}
    captions = {path for path in files if path.suffix.lower() in CAPTION_SUFFIXES and path.with_suffix("") in photos}
    beside = CaptionFiles()
    in_tables, left_out, faulty_tables = read_caption_tables(files)
    first_with: dict[str, Path] = {}
    for path in files:
        if path in faulty_tables:
            yield Skipped(path, faulty_tables[path])
        if path in captions or is_caption_table(path):
            continue
        result = read_photo(path, beside)
        if isinstance(result, Photo):
            if result.caption is None and path in in_tables:
                result = replace(result, caption=in_tables[path])
            elif result.caption is None and path in left_out:
                result = replace(result, notes=(*result.notes, left_out[path]))
            twin = first_with.setdefault(result.sha256, path)
            if twin is not path:
                yield Skipped(path, f"the same image as {printable(twin.name)}")
                continue
        yield result


def read_photo(path: Path, captions: CaptionFiles | None = None) -> Photo | Skipped:
    """Return one photo, or why it is left out; it never raises for what is inside the file."""
    try:
        stray = _stray_reason(path)
        if stray:
            return Skipped(path, stray, stray=True)
        size = path.stat().st_size
        if size > MAX_BYTES:
            return Skipped(path, f"{size:,} bytes, more than the {MAX_BYTES:,} allowed")
        if size == 0:
            return Skipped(path, "an empty file")
        image, notes = decode(path)
        png = to_png(image)
    except NeedsPackage as error:
        return Skipped(path, str(error), needs=error.package)
    except NotUsable as error:
        return Skipped(path, str(error))
    except OSError as error:
        return Skipped(path, f"cannot be read: {error.strerror or printable(str(error))}")
    caption, caption_notes = _caption_for(path, captions or CaptionFiles())
    return Photo(
        source=path,
        png=png,
        sha256=hashlib.sha256(png).hexdigest(),
        width=image.width,
        height=image.height,
        caption=caption,
        notes=(*notes, *caption_notes),
    )


def list_files(sources: Sequence[Path]) -> list[Path]:
    """Return the files of all sources: files as given, folders walked and sorted by path, each file once.

    Raises PhotoError for a source that is not there, or a folder with more files than photos ever need.
    """
    files: dict[Path, None] = {}
    for source in sources:
        source = source.expanduser()
        if source.is_dir():
            files.update(dict.fromkeys(_walk(source)))
        elif os.path.lexists(source):
            files[source] = None
        else:
            raise PhotoError(f"There is no file or folder {printable(str(source), 200)}.")
    return list(files)


def _walk(folder: Path) -> Iterable[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        # Sorted everywhere: seeds index this list, and directory order varies by disk.
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _STRAY_FOLDERS)
        found += [Path(parent, name) for name in names]
        if len(found) > MAX_FILES:
            raise PhotoError(
                f"{printable(str(folder), 200)} contains more than {MAX_FILES:,} files; is it the right folder?"
            )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def looks_like_a_photo(path: Path) -> bool:
    """Whether a file claims to be a photo, by its name or its beginning."""
    try:
        return _stray_reason(path) is None
    except OSError:
        return False


def _stray_reason(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "a hidden file"
    if not path.is_file():  # a socket or a pipe would make the reader wait for ever
        return "a broken link" if path.is_symlink() else "not a file"
    if suffix in PHOTO_SUFFIXES or suffix in MODERN_SUFFIXES or _looks_like_a_photo(path):
        return None
    return "not a photo"


def _looks_like_a_photo(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(32)
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
    return head.startswith(starts) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or is_modern(head)


def _caption_for(photo: Path, captions: CaptionFiles) -> tuple[str | None, list[str]]:
    path = captions.beside(photo)
    if path is None:
        return None, []
    try:
        return read_caption(path), []
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        return None, [f"the caption {printable(path.name)} was left out: {reason}"]
