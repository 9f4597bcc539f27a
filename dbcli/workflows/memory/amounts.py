"""How much of everything a recipe and its subjects ask for: sizes of images, images to encode, prompts to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbcli.diffusion.buckets import Size, training_sizes
from dbcli.project.prompts.shuffling import SHUFFLED_ORDERS
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.models.textual_inversion import has_prior

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


@dataclass(frozen=True)
class Shapes:
    """What decides in which sizes a run sees images: two settings, and width and height of its photos."""

    resolution: int | None
    buckets: str
    photos: tuple[Size, ...]

    def largest(self, base: Base) -> Size:
        """The size that takes most."""
        square, how = self.resolution or base.resolution, {"grid_px": base.grid_px, "step_px": base.step_px}
        sizes = training_sizes(self.buckets, self.photos, square, **how)
        return max(sizes, key=lambda size: size[0] * size[1])


def rows_of(profile: Profile) -> int:
    """How many images a pass of a step sees: as many of the class as of the subject."""
    return profile.train.batch_size * (2 if has_prior(profile) else 1)


def class_images_of(profile: Profile, subjects: Sequence[Subject]) -> int:
    """How many class images a run has: as many for each class noun of its subjects."""
    nouns = {subject.class_noun for subject in subjects}
    return max(1, len(nouns)) * profile.prior.images if has_prior(profile) else 0


def images_to_encode(profile: Profile, photos: int, class_images: int) -> int:
    """How many images a run encodes, where every photo has a mask: each view of each photo, and the class images.

    Photos without a mask, or whose masks are not used, have no cut-outs.
    """
    from dbcli.diffusion.images import RANDOM_CROPS

    images = profile.images
    squares = RANDOM_CROPS if images.crop == "random" else 1
    cutouts = images.cutouts + scenes_a_photo(profile) if images.mask_loss < 1 else 0
    views = squares * (1 + cutouts) * (2 if images.flip else 1)
    return photos * views + class_images


def prompts_to_keep(profile: Profile, subjects: Sequence[Subject]) -> int:
    """How many prompts a run has encoded during its steps, at most: every photo may have a mask."""
    images, sentences = profile.images, len(profile.images.templates)
    orders = 1 if images.caption_shuffle == "off" else 1 + SHUFFLED_ORDERS
    count = 1  # the empty one
    for subject in subjects:
        photos = len(subject.photos)
        captions = {one.caption for one in subject.photos if one.caption is not None} if images.caption_share else ()
        # Sentences alone, and those of the class.
        count += sentences * (2 if has_prior(profile) else 1)
        grounds = min(photos * scenes_a_photo(profile), len(images.scenes))
        grounds += photos * images.cutouts if images.mask_loss < 1 else 0
        count += sentences * orders * (len(captions) + grounds)
    return count


def scenes_a_photo(profile: Profile) -> int:
    """How many scenes a run draws for each photo that has a mask."""
    images = profile.images
    return min(images.scene_cutouts, len(images.scenes)) if images.mask_loss < 1 else 0
