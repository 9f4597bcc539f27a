"""A second look at a subject's photos before a run learns their faults with them, and a sheet of their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.project.files.atomic import write_bytes
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.photo_notes import mask_paths
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import photo_paths
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import resolve_profile

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.diffusion.images import Box
    from dbcli.metrics.photo_faults import Look
    from dbcli.project.settings.profile_settings import ImageSettings

# Every 1.x base and the embedded one; a 2.x base at 768 px is set by `resolution` in dreambooth.yaml.
USUAL_RESOLUTION, EMBEDDED_RESOLUTION = 512, 128
# Every photo is compared with every other; a set this large is better looked through in a picture viewer.
MOST_PHOTOS = 100
# A crop that keeps less than this share of a photo may well lose the subject at an edge.
KEPT_BY_CROP = 0.6
# The sheet shows squares no larger, and a hundred of 2,048 px would fill the memory.
LARGEST_TILE_PX = 600


@dataclass(frozen=True)
class PhotoFault:
    """One fault: which photos it concerns, two words for the sheet, a sentence for a person."""

    kind: str
    photos: list[str]
    label: str
    text: str


@dataclass(frozen=True)
class PhotoReview:
    """What was found in a subject's photos, how many were looked at, and the sheet of their crops."""

    faults: list[PhotoFault]
    looked_at: int
    sheet: Path


def review_photos(layout: Layout, subject: Subject, names: Sequence[str], progress: Progress) -> PhotoReview:
    """Looks at the first photos of a subject and writes `contact-sheet.png` beside its record.

    `names` are what a person knows the photos by, one a photo. Where a photo has a mask, that says how large its
    subject is, and with images.crop: subject the sheet shows the first square around it.
    """
    from PIL import Image

    from dbcli.metrics.photo_faults import look_at
    from dbcli.reports.contact_sheet import Crop, draw_contact_sheet

    paths = photo_paths(layout, subject)[:MOST_PHOTOS]
    looks: list[Look] = []
    squares = []
    resolution, images = training_resolution(layout), resolve_profile(layout)[1].images
    masks = mask_paths(layout, subject) if images.mask_loss < 1 else [None for _ in subject.photos]
    with progress.stage("Checking the photos", len(paths)) as stage:
        for path, mask in zip(paths, masks, strict=False):
            with Image.open(path, formats=("PNG",)) as opened:
                photo = opened.convert("RGB")
            look = look_at(photo, resolution)
            box = _square(photo, images, mask, len(looks))
            looks.append(look if mask is None else replace(look, subject_share=_masked_share(mask, photo.size, box)))
            square = photo.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
            square.thumbnail((LARGEST_TILE_PX, LARGEST_TILE_PX))
            squares.append(square)
            stage.advance()
    # Folders of two cameras may both hold an IMG_0001.JPG.
    shown = list(names)[: len(paths)] if len(set(names)) == len(names) else [path.name for path in paths]
    fitted = zip(shown, masks, strict=False) if images.crop == "subject" else ()
    around = [name for name, mask in fitted if mask is not None]
    faults = photo_faults(shown, looks, resolution, around_subject=around)
    crops = [
        Crop(square, name, [fault.label for fault in faults if name in fault.photos])
        for name, square in zip(shown, squares, strict=True)
    ]
    sheet = layout.contact_sheet(subject.name)
    title = f"{subject.name}: photos as training sees them, {resolution} px"
    write_bytes(sheet, png_bytes(draw_contact_sheet(crops, title=title)))
    return PhotoReview(faults, len(paths), sheet)


def training_resolution(layout: Layout) -> int:
    """The pixels a side that photos are cropped to, as far as is known without loading the base."""
    settings = load_settings(layout)
    chosen: int | None = resolve_profile(layout)[1].images.resolution
    return chosen or (EMBEDDED_RESOLUTION if settings.is_embedded else USUAL_RESOLUTION)


def photo_faults(
    names: Sequence[str], looks: Sequence[Look], resolution: int, *, around_subject: Sequence[str] = ()
) -> list[PhotoFault]:
    """Every fault of a set of photos, the worst kinds first; those `around_subject` are not cropped to their centre."""
    from dbcli.metrics.photo_faults import BLURRED, BRIGHT, DARK, SMALL_SUBJECT, near_duplicates, same_background

    alone = [
        (
            "blurry",
            [look.softness > BLURRED for look in looks],
            "blurry",
            f"no part of it is sharp at the {resolution} px of training",
        ),
        (
            "black-bars",
            [look.bars for look in looks],
            "black bars",
            "black bars at two edges, which are learnt with the subject; cut them away",
        ),
        (
            "small-subject",
            [look.subject_share is not None and look.subject_share < SMALL_SUBJECT for look in looks],
            "small subject",
            f"the subject fills less than an eighth of the {resolution} px square; cut the photo closer",
        ),
        (
            "too-small",
            [look.short_side_px < resolution for look in looks],
            "too small",
            f"its short side is under the {resolution} px of training and is enlarged",
        ),
        ("too-dark", [look.brightest < DARK for look in looks], "too dark", "almost everything is black"),
        ("too-light", [look.darkest > BRIGHT for look in looks], "too light", "almost everything is white"),
        (
            "much-cropped",
            [
                name not in around_subject and look.short_side_px / max(look.width, look.height) < KEPT_BY_CROP
                for name, look in zip(names, looks, strict=True)
            ],
            "much is cropped",
            "the centre crop leaves out over a third of it; is the whole subject inside?",
        ),
    ]
    faults = [
        PhotoFault(kind, found, label, f"{_listed(found)}: {text}.")
        for kind, marks, label, text in alone
        if (found := [name for name, marked in zip(names, marks, strict=True) if marked])
    ]
    copies = _joined(near_duplicates(looks))
    for group in copies:
        alike = [names[index] for index in group]
        text = f"{_listed(alike)}: nearly the same photo (or its mirror image); one of them is enough."
        faults.append(PhotoFault("near-duplicate", alike, "near-duplicate", text))
    # Copies of one photo have one background, and are told of already.
    distinct = [index for index in range(len(looks)) if not any(index in group[1:] for group in copies)]
    behind = [names[distinct[place]] for place in same_background([looks[index] for index in distinct])]
    if behind:
        text = f"{_listed(behind)}: the same background, which is learnt with the subject; vary the places."
        faults.append(PhotoFault("same-background", behind, "same background", text))
    return faults


def _square(photo: Image.Image, images: ImageSettings, mask: Path | None, number: int) -> Box:
    """The square of a photo that training sees: around the subject, or the centre."""
    if images.crop != "subject" or mask is None:
        side = min(photo.size)
        left, top = (photo.width - side) / 2, (photo.height - side) / 2
        return left, top, left + side, top + side
    from dbcli.diffusion.images import crop_boxes

    boxes: list[Box] = crop_boxes("subject", photo.width, photo.height, seed=0, number=number, mask=mask)
    return boxes[0]


def _masked_share(path: Path, photo_size: tuple[int, int], box: Box) -> float:
    """The share of a square of a photo that is white in its mask, 0 to 1."""
    from PIL import Image, ImageStat

    from dbcli.diffusion.images import mask_in_photo

    seen = mask_in_photo(path, photo_size).resize((64, 64), Image.Resampling.BOX, box=box)
    return float(ImageStat.Stat(seen).mean[0]) / 255


def _joined(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Pairs that share a photo as one group: three copies of a photo are one fault, not three."""
    groups: list[set[int]] = []
    for pair in pairs:
        touched = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in touched] + [set(pair).union(*touched)]
    return sorted(sorted(group) for group in groups)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
