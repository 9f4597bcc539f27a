"""Subjects cut out along their masks and shown elsewhere, so that they are learnt apart from where they stood."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dbcli.diffusion.buckets import Box, Size
from dbcli.diffusion.images import mask_in_photo, with_mirrored
from dbcli.diffusion.noise import generator_for, permutation_of

# RGB, 0 to 255.
COLOURS = {
    "red": (200, 40, 40),
    "orange": (235, 140, 40),
    "yellow": (240, 210, 60),
    "green": (70, 160, 70),
    "blue": (60, 100, 200),
    "purple": (130, 70, 170),
    "pink": (240, 150, 190),
    "brown": (130, 90, 60),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
    "gray": (140, 140, 140),
}
# Where a mask of 0 to 1 begins to show the subject, and where it shows nothing else: drafts have wide edges.
CLEAR, OPAQUE = 0.25, 0.6
# How much lighter or darker a ground may be at its top and its bottom.
SHADE = 0.15


def colours_of(seed: int, number: int, count: int) -> list[str]:
    """The names of `count` colours that photo `number` is shown on, each before one comes twice."""
    names = list(COLOURS)
    return [names[permutation_of(len(names), seed, "cutout", number)[place % len(names)]] for place in range(count)]


def scenes_of(seed: int, subject: int, place: int, count: int, scenes: Sequence[str]) -> list[str]:
    """The scenes that a subject's photo at `place` is shown in, at most `count`, none twice.

    They go on from photo to photo, so that a subject meets each scene before it meets one again.
    """
    count, order = min(count, len(scenes)), permutation_of(len(scenes), seed, "scene", 0, subject)
    return [scenes[order[(place * count + one) % len(scenes)]] for one in range(count)]


def opacity_variants(
    mask: Path, photo_size: Size, boxes: Sequence[Box], size: Size, *, flip: bool
) -> list[torch.Tensor]:
    """How much of the photo shows in each of its views, `[1, height, width]` in [0, 1].

    Raises PhotoError for a mask that cannot be read.
    """
    grey = mask_in_photo(mask, photo_size)
    views = []
    for box in boxes:
        small = grey.resize(size, Image.Resampling.BILINEAR, box=box)
        values = torch.from_numpy(np.asarray(small, dtype=np.float32).copy())[None] / 255
        views.append(((values - CLEAR) / (OPAQUE - CLEAR)).clamp(0, 1))
    return with_mirrored(views, flip)


def ground(size: Size, colour: str, *, seed: int, number: int) -> torch.Tensor:
    """A colour with a slight slope of light from top to bottom, `[3, height, width]` in [-1, 1]."""
    chance = torch.rand(2, generator=generator_for(seed, "ground", number)).tolist()
    top, bottom = (1 + SHADE * (2 * one - 1) for one in chance)
    light = torch.linspace(top, bottom, size[1])[None, :, None]
    rgb = torch.tensor(COLOURS[colour], dtype=torch.float32)[:, None, None]
    return ((rgb * light).clamp(0, 255) / 127.5 - 1).expand(3, size[1], size[0])
