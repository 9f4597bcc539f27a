"""What a person may edit beside a stored photo: its mask (`masks/0001.png`) and its caption (`photos/0001.txt`).

Neither is hashed in the subject's record, for they are there to be changed. A run records what it used.
"""

from collections.abc import Sequence
from pathlib import Path

from dbcli.errors import SubjectError
from dbcli.project.files.atomic import sha256_of, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable, without_control_characters
from dbcli.project.subjects.captions import CaptionFiles, read_caption
from dbcli.project.subjects.photos import MODERN_SUFFIXES, PHOTO_SUFFIXES
from dbcli.project.subjects.subject_record import Subject


def mask_paths(layout: Layout, subject: Subject) -> list[Path | None]:
    """Return the mask of each photo, in the order of the record, None where there is none.

    Raises SubjectError for a link and for an image in `masks/` that is the mask of no photo, for its name may be a
    slip: a mask is a PNG with the name of its photo, in any case of the ending.
    """
    folder = layout.masks_dir(subject.name)
    if not folder.is_dir():
        return [None for _ in subject.photos]
    images = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PHOTO_SUFFIXES | MODERN_SUFFIXES]
    by_name = {f"{path.stem}{path.suffix.lower()}": path for path in images if path.name[0] != "."}
    strays = sorted(path.name for name, path in by_name.items() if name not in {one.file for one in subject.photos})
    if strays:
        raise SubjectError(
            f"{layout.shown(folder)} contains {printable(', '.join(strays[:5]))}, which is the mask of no photo.",
            hint=f"a mask is a PNG with the name of its photo in {layout.shown(layout.photos_dir(subject.name))}",
        )
    paths = [by_name.get(entry.file) for entry in subject.photos]
    for path in paths:
        if path is not None and path.is_symlink():
            raise SubjectError(f"{layout.shown(path)} is a link; a mask is a file of its own.")
    return [path if path is not None and path.is_file() else None for path in paths]


def mask_hashes(layout: Layout, subject: Subject) -> list[str | None]:
    """Return the sha256 of each photo's mask, None where there is none."""
    return [None if path is None else sha256_of(path) for path in mask_paths(layout, subject)]


def masks_in_use(layout: Layout, subject: Subject, mask_loss: float) -> list[str | None]:
    """Return what a run records of a subject's masks: nothing where there are none, or `mask_loss` is 1."""
    found = mask_hashes(layout, subject) if mask_loss < 1 else []
    return found if any(found) else []


def captions_of(layout: Layout, subject: Subject) -> list[str | None]:
    """Return each photo's caption: of the text file beside it if there is one, else of the record."""
    files = caption_files(layout, subject)
    return [
        entry.caption if file is None else _read(layout, file)
        for entry, file in zip(subject.photos, files, strict=True)
    ]


def captions_in_files(layout: Layout, subject: Subject) -> list[str | None]:
    """Return the caption in the text file beside each photo, None where there is no file."""
    return [None if file is None else _read(layout, file) for file in caption_files(layout, subject)]


def caption_files(layout: Layout, subject: Subject) -> list[Path | None]:
    """Return the text file beside each photo, None where there is none; a link is none."""
    found, folder = CaptionFiles(), layout.photos_dir(subject.name)
    files = [found.beside(folder / entry.file) for entry in subject.photos]
    return [None if file is None or file.is_symlink() else file for file in files]


def caption_places(layout: Layout, subject: Subject) -> list[str]:
    """Return where each photo's caption stands, for a person: the text file beside it, else the subject's record."""
    record = layout.subject_file(subject.name)
    return [
        f"the caption of {entry.file} of {subject.name}, in {layout.shown(file or record)}"
        for entry, file in zip(subject.photos, caption_files(layout, subject), strict=True)
    ]


def write_captions(layout: Layout, subject: Subject, captions: Sequence[str | None]) -> list[Path]:
    """Write a text file beside each photo that has a caption here, one a photo; return their paths."""
    written = []
    for entry, file, caption in zip(subject.photos, caption_files(layout, subject), captions, strict=True):
        if caption is not None:
            path = file or (layout.photos_dir(subject.name) / entry.file).with_suffix(".txt")
            write_text(path, without_control_characters(caption) + "\n")
            written.append(path)
    return written


def _read(layout: Layout, file: Path) -> str | None:
    try:
        return read_caption(file)
    except ValueError as error:
        raise SubjectError(f"The caption {layout.shown(file)} is {error}.") from error
