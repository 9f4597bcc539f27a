"""What a person may edit beside a stored photo: its mask (`masks/0001.png`) and its caption (`photos/0001.txt`).

Neither is hashed in the subject's record, for they are there to be changed. A run records what it used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dbcli.errors import SubjectError
from dbcli.project.atomic import sha256_of, write_text
from dbcli.project.caption_tables import MAX_CAPTION
from dbcli.project.layout import Layout
from dbcli.project.names import printable, without_control_characters
from dbcli.project.subjects import PhotoEntry, Subject


def mask_paths(layout: Layout, subject: Subject) -> list[Path | None]:
    """Return the mask of each photo, in the order of the record, None where there is none.

    Raises SubjectError for a link and for a PNG in `masks/` that belongs to no photo, for its name may be a slip.
    """
    folder = layout.masks_dir(subject.name)
    if not folder.is_dir():
        return [None for _ in subject.photos]
    known = {entry.file for entry in subject.photos}
    strays = sorted(path.name for path in folder.glob("*.png") if path.name not in known and path.name[0] != ".")
    if strays:
        raise SubjectError(
            f"{layout.shown(folder)} holds {printable(', '.join(strays[:5]))}, which is the mask of no photo.",
            hint=f"a mask has the name of its photo in {layout.shown(layout.photos_dir(subject.name))}",
        )
    paths = [folder / entry.file for entry in subject.photos]
    for path in paths:
        if path.is_symlink():
            raise SubjectError(f"{layout.shown(path)} is a link; a mask is a file of its own.")
    return [path if path.is_file() else None for path in paths]


def mask_hashes(layout: Layout, subject: Subject) -> list[str | None]:
    """Return the sha256 of each photo's mask, None where there is none."""
    return [None if path is None else sha256_of(path) for path in mask_paths(layout, subject)]


def captions_of(layout: Layout, subject: Subject) -> list[str | None]:
    """Return each photo's caption: of the text file beside it if there is one, else of the record."""
    return [_caption(layout, subject, entry) for entry in subject.photos]


def captions_in_files(layout: Layout, subject: Subject) -> list[str | None]:
    """Return the caption in the text file beside each photo, None where there is no file."""
    files = [_caption_file(layout, subject, entry) for entry in subject.photos]
    return [
        _caption(layout, subject, entry) if file.is_file() and not file.is_symlink() else None
        for entry, file in zip(subject.photos, files, strict=True)
    ]


def write_captions(layout: Layout, subject: Subject, captions: Sequence[str | None]) -> list[Path]:
    """Write a text file beside each photo that has a caption here, one a photo; return their paths."""
    written = []
    for entry, caption in zip(subject.photos, captions, strict=True):
        if caption is not None:
            path = _caption_file(layout, subject, entry)
            write_text(path, without_control_characters(caption) + "\n")
            written.append(path)
    return written


def _caption(layout: Layout, subject: Subject, entry: PhotoEntry) -> str | None:
    path = _caption_file(layout, subject, entry)
    if not path.is_file() or path.is_symlink():
        return entry.caption
    try:
        with path.open("rb") as file:
            text = without_control_characters(file.read(MAX_CAPTION * 4 + 1).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SubjectError(f"The caption {layout.shown(path)} is not text in UTF-8.") from error
    if len(text) > MAX_CAPTION:
        raise SubjectError(f"The caption {layout.shown(path)} is longer than {MAX_CAPTION:,} characters.")
    return text or None


def _caption_file(layout: Layout, subject: Subject, entry: PhotoEntry) -> Path:
    return (layout.photos_dir(subject.name) / entry.file).with_suffix(".txt")
