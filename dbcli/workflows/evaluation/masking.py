"""Scores without backgrounds: what blanks them, CLIPSeg in photos and images alike, or masks beside the photos."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import JudgeMissing
from dbcli.project.files.atomic import sha256_of, write_bytes
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.photo_notes import mask_paths
from dbcli.project.subjects.subject_store import photo_paths
from dbcli.workflows.images.grids import subject_of
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import judge_sources

if TYPE_CHECKING:
    from dbcli.metrics.judges.masking import ClassMask

PHOTOS_ONLY = "photos only, by the masks beside them; pictures whole"


@dataclass(frozen=True)
class Masking:
    """What blanks backgrounds: a model for everything, or for want of it the photos, blanked by their own masks."""

    mask: ClassMask | None = None
    photos: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


def load_masking(layout: Layout, record: RunRecord, profile: Profile, progress: Progress, *, offline: bool) -> Masking:
    """CLIPSeg, else the masks beside the photos where every photo has one.

    Raises JudgeMissing (exit 4) with the ways out where there is neither.
    """
    from dbcli.diffusion.devices import pick_device
    from dbcli.metrics.judges.masking import load_mask

    source, device = judge_sources(layout).get("mask"), str(pick_device(profile.train.device))
    try:
        return Masking(load_mask(source, offline=offline, device=device))
    except JudgeMissing as error:
        photos = _blanked(layout, record)
        if photos is None:
            raise JudgeMissing(
                f"--masked needs CLIPSeg, or a mask beside every photo. {error.message}",
                hint="leave --masked out, paint subjects/NAME/masks/0001.png for each photo, or name a local copy in "
                "dreambooth.yaml:\n  judges:\n    mask: /path/to/clipseg",
            ) from error
    progress.warn(
        "CLIPSeg is not on this machine: the masks blank the photos' backgrounds; images are scored whole. "
        "A copied background gains nothing; compare only with values measured like this."
    )
    return Masking(photos=photos)


def _blanked(layout: Layout, record: RunRecord) -> dict[str, tuple[Path, ...]] | None:
    """Copies of every photo with a grey background, by subject; None unless all photos have masks."""
    found: dict[str, tuple[Path, ...]] = {}
    for subject in record.subjects:
        known = subject_of(layout, subject)
        if known is None:
            return None
        masks = mask_paths(layout, known)
        if not masks or None in masks:
            return None
        pairs = zip(photo_paths(layout, known), masks, strict=True)
        found[subject.name] = tuple(_copy(layout, photo, mask) for photo, mask in pairs if mask is not None)
    return found


def _copy(layout: Layout, photo: Path, mask: Path) -> Path:
    """The photo with everything outside of its mask grey, kept in the cache under the hash of both."""
    from PIL import Image

    from dbcli.diffusion.images import grey_mask
    from dbcli.metrics.judges.masking import GREY

    key = hashlib.sha256(f"{sha256_of(photo)} {sha256_of(mask)} {GREY}".encode()).hexdigest()[:32]
    path = layout.blanked_photos_dir / f"{key}.png"
    if not path.exists():
        with Image.open(photo, formats=("PNG",)) as one, Image.open(mask, formats=("PNG",)) as other:
            image = one.convert("RGB")
            kept = grey_mask(other).resize(image.size, Image.Resampling.BILINEAR).convert("L")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, png_bytes(Image.composite(image, Image.new("RGB", image.size, GREY), kept)))
    return path
