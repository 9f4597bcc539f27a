"""A second look at a subject's photos before a run learns their faults with them, and a sheet of their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.buckets import Box, Size, crop_box, size_for, training_sizes
from dbcli.project.files.atomic import write_bytes
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.settings.project_settings import EMBEDDED_BASES, load_settings
from dbcli.project.subjects.photo_notes import mask_paths
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import photo_paths
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.base_facts import base_like
from dbcli.workflows.setup.effective_settings import resolve_profile

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.metrics.photo_faults import Look

# Every 1.x base, those of other sizes and the embedded ones; a 2.x base at 768 px is set by `resolution` in
# dreambooth.yaml.
USUAL_RESOLUTION, RESOLUTIONS = 512, {"sdxl": 1024, "zimage": 1024, **dict.fromkeys(EMBEDDED_BASES, 128)}
# What the sides of an image are multiples of, as far as possible and at least, where the base is not loaded.
USUAL_GRID_PX, EMBEDDED_GRID_PX, STEP_PX = 64, 32, 8
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
    subject is, and with images.crop: subject the sheet shows the first part around it. With images.buckets: auto the
    sizes are those of a run with this subject alone.
    """
    from PIL import Image

    from dbcli.metrics.photo_faults import look_at
    from dbcli.reports.contact_sheet import Crop, draw_contact_sheet

    paths = photo_paths(layout, subject)[:MOST_PHOTOS]
    looks: list[Look] = []
    parts = []
    sizes, images = sizes_in_training(layout, subject), resolve_profile(layout)[1].images
    masks = mask_paths(layout, subject) if images.mask_loss < 1 else [None for _ in subject.photos]
    with progress.stage("Checking the photos", len(paths)) as stage:
        for path, mask in zip(paths, masks, strict=False):
            with Image.open(path, formats=("PNG",)) as opened:
                photo = opened.convert("RGB")
            size = size_for(photo.size, sizes)
            whole = crop_box(*photo.size, aspect=size[0] / size[1])
            cut = None if images.buckets == "off" else photo.crop(whole)
            look = look_at(photo, min(size), cut)
            box = whole if images.crop != "subject" or mask is None else _around(photo, mask, size)
            looks.append(look if mask is None else replace(look, subject_share=_masked_share(mask, photo.size, box)))
            part = photo.resize(size, Image.Resampling.LANCZOS, box=box)
            part.thumbnail((LARGEST_TILE_PX, LARGEST_TILE_PX))
            parts.append((part, f", {_in_px([size])}" if len(sizes) > 1 else ""))
            stage.advance()
    # Folders of two cameras may both hold an IMG_0001.JPG.
    shown = list(names)[: len(paths)] if len(set(names)) == len(names) else [path.name for path in paths]
    kept = zip(shown, masks, strict=False) if images.crop == "subject" else ()
    not_centred = shown if images.buckets != "off" else [name for name, mask in kept if mask is not None]
    faults = photo_faults(shown, looks, sizes, not_centred=not_centred)
    crops = [
        Crop(part, name + said, [fault.label for fault in faults if name in fault.photos])
        for name, (part, said) in zip(shown, parts, strict=True)
    ]
    sheet = layout.contact_sheet(subject.name)
    in_sizes = _in_px(sizes) if len(sizes) == 1 else f"in {len(sizes)} sizes"
    title = f"{subject.name}: photos as training sees them, {in_sizes}"
    write_bytes(sheet, png_bytes(draw_contact_sheet(crops, title=title)))
    return PhotoReview(faults, len(paths), sheet)


def sizes_in_training(layout: Layout, subject: Subject) -> list[Size]:
    """The sizes in px that photos are cropped to, as far as is known without loading the base."""
    settings, images = load_settings(layout), resolve_profile(layout)[1].images
    resolution = images.resolution or RESOLUTIONS.get(base_like(settings.base), USUAL_RESOLUTION)
    grid = EMBEDDED_GRID_PX if settings.is_embedded else USUAL_GRID_PX
    sizes: list[Size] = training_sizes(images.buckets, subject.shapes, resolution, grid_px=grid, step_px=STEP_PX)
    return sizes


def photo_faults(
    names: Sequence[str], looks: Sequence[Look], sizes: Sequence[Size], *, not_centred: Sequence[str] = ()
) -> list[PhotoFault]:
    """Every fault of a set of photos, the worst kinds first; those `not_centred` are not cut to their middle square.

    `sizes` are those that the photos are trained at, in px.
    """
    from dbcli.metrics.photo_faults import BLURRED, BRIGHT, DARK, SMALL_SUBJECT, near_duplicates, same_background

    short_sides = [min(size_for((look.width, look.height), sizes)) for look in looks]
    at, square = _in_px([(side, side) for side in short_sides]), f"{_in_px(sizes)} square"
    if not all(width == height for width, height in sizes):
        square = "part that training sees"
    alone = [
        (
            "blurry",
            [look.softness > BLURRED for look in looks],
            "blurry",
            f"no part of it is sharp at the {at} of training",
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
            f"the subject fills less than an eighth of the {square}; cut the photo closer",
        ),
        (
            "too-small",
            [look.short_side_px < side for look, side in zip(looks, short_sides, strict=True)],
            "too small",
            f"its short side is under the {at} of training and is enlarged",
        ),
        ("too-dark", [look.brightest < DARK for look in looks], "too dark", "almost everything is black"),
        ("too-light", [look.darkest > BRIGHT for look in looks], "too light", "almost everything is white"),
        (
            "much-cropped",
            [
                name not in not_centred and look.short_side_px / max(look.width, look.height) < KEPT_BY_CROP
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


def _in_px(sizes: Sequence[Size]) -> str:
    """Sizes in words: "512 px", "832 to 1024 px" for squares, else "832 × 1216, 1152 × 896 px"."""
    if all(width == height for width, height in sizes) and len(sizes) > 1:
        least, most = min(sizes)[0], max(sizes)[0]
        return f"{least} px" if least == most else f"{least} to {most} px"
    return ", ".join(f"{width}" if width == height else f"{width} × {height}" for width, height in sizes) + " px"


def _around(photo: Image.Image, mask: Path, size: Size) -> Box:
    """The part of a photo around its subject."""
    from dbcli.diffusion.images import crop_boxes

    boxes: list[Box] = crop_boxes("subject", *photo.size, seed=0, number=0, mask=mask, aspect=size[0] / size[1])
    return boxes[0]


def _masked_share(path: Path, photo_size: tuple[int, int], box: Box) -> float:
    """The share of a part of a photo that is white in its mask, 0 to 1."""
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
