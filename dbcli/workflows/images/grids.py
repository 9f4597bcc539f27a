"""Contact sheets: the photos first, then what was generated, a row per prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import SubjectError
from dbcli.project.files.atomic import write_bytes
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import load_subject, photo_paths
from dbcli.workflows.images.generated import GeneratedImage

if TYPE_CHECKING:
    from PIL import Image

TILE_PX, MOST_COLUMNS = 160, 8
# With so few images per prompt, rows of their own would leave most of a sheet white.
FEW_IMAGES = 3


def photos_of(layout: Layout, record: RunRecord | None) -> dict[str, list[Path]]:
    """The photos of each subject a run learnt, by subject name, that are there.

    Subjects deleted since are left out, and so are those under whose name others are now.
    """
    found = ((learnt, subject_of(layout, learnt)) for learnt in (record.subjects if record is not None else []))
    return {
        learnt.name: [path for path in photo_paths(layout, subject) if path.is_file()]
        for learnt, subject in found
        if subject is not None
    }


def subject_of(layout: Layout, learnt: RunSubject) -> Subject | None:
    """The subject that a run learnt, as it is in the project now; None where it is gone or has none of its photos."""
    try:
        subject = load_subject(layout, learnt.name)
    except SubjectError:
        return None
    is_other = learnt.photo_hashes and not {photo.sha256 for photo in subject.photos} & set(learnt.photo_hashes)
    return None if is_other else subject


def image_grid(layout: Layout, record: RunRecord | None, images: Sequence[GeneratedImage], folder: Path) -> Path:
    """Writes one sheet of images into `folder`, named by what it shows; returns its path."""
    names = "\n".join(image.path.name for image in images)
    path = folder / f"grid-{hashlib.sha256(names.encode()).hexdigest()[:12]}.png"
    by_prompt: dict[str, list[Path]] = {}
    for image in images:
        by_prompt.setdefault(image.recipe.prompt, []).append(image.path)
    write_sheet(path, photos_of(layout, record), by_prompt)
    return path


def write_sheet(
    path: Path, photos: dict[str, list[Path]], rows: dict[str, list[Path]], *, title: str | None = None
) -> None:
    """Writes a sheet: a row of photos per subject, then a row per label; few images per label stand side by side."""
    from dbcli.reports.blocks import draw_blocks
    from dbcli.reports.grids import GridRow, draw_grid

    sheet = [GridRow(f"photos of {name}", opened(files), is_photos=True) for name, files in photos.items()]
    sheet += [GridRow(label, opened(files)) for label, files in rows.items()]
    if max((len(files) for files in rows.values()), default=0) <= FEW_IMAGES:
        sheet_image = draw_blocks(sheet, tile_px=TILE_PX, title=title)
    else:
        sheet_image = draw_grid(sheet, tile_px=TILE_PX, title=title, columns=MOST_COLUMNS)
    write_bytes(path, png_bytes(sheet_image))


def opened(files: Sequence[Path]) -> list[Image.Image]:
    """Generated images and stored photos, which are all PNG, in memory."""
    from PIL import Image

    images: list[Image.Image] = []
    for file in files:
        with Image.open(file, formats=("PNG",)) as image:
            images.append(image.convert("RGB"))
    return images
