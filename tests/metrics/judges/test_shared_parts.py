"""Masks of what photos have in common: worked out on maps made by hand, tried on composed photos with the judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dbcli.metrics.judges.embedded import load_maps
from dbcli.metrics.judges.shared_parts import draft_masks, shared_parts

# Where the subject lies in each of four photos, in places of a 16 x 16 map: left, top, of 6 x 6 places.
SUBJECTS = [(3, 4), (6, 5), (5, 7), (4, 4)]


def maps_by_hand(photos: Sequence[Image.Image]) -> list[torch.Tensor]:
    """Noise of its own in every place, and one direction in those of the subject."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(photos), 64, 16, 16, generator=generator)
    common = torch.randn(64, generator=generator)
    for row, (left, top) in zip(values, SUBJECTS, strict=False):
        row[:, top : top + 6, left : left + 6] = common[:, None, None] * 2 + 0.3 * row[:, :6, :6]
    return [values]


def test_what_all_photos_hold_is_white_and_what_one_holds_is_black() -> None:
    found = shared_parts(maps_by_hand, [Image.new("RGB", (64, 64))] * 4)
    assert found.shape == (4, 32, 32) and float(found.min()) >= 0 and float(found.max()) == pytest.approx(1)
    for mask, (left, top) in zip(found, SUBJECTS, strict=True):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[2 * top + 2 : 2 * top + 10, 2 * left + 2 : 2 * left + 10] = True
        near = torch.zeros(32, 32, dtype=torch.bool)
        near[2 * top - 2 : 2 * top + 14, 2 * left - 2 : 2 * left + 14] = True
        assert float(mask[inside].mean()) > 0.6
        assert float(mask[~near].mean()) < 0.1


def test_one_photo_has_nothing_to_be_compared_with() -> None:
    assert draft_masks(maps_by_hand, [Image.new("RGB", (64, 64))]) == [None]


def test_the_judge_finds_a_thing_in_photos_of_any_shape() -> None:
    # A striped disc on grounds of their own; the masks have their photos' sizes and are white where it lies.
    draw = np.random.default_rng(3)
    photos, discs = [], []
    for size, (x, y, radius) in [((240, 160), (130, 80, 40)), ((160, 200), (70, 110, 38)), ((200, 200), (110, 90, 45))]:
        ground = draw.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        photo = Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(photo)
        for ring, colour in enumerate(["red", "white", "blue", "yellow", "black"]):
            reach = radius * (5 - ring) / 5
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
        photos.append(photo)
        discs.append((x, y, radius))
    masks = draft_masks(load_maps(), photos)
    for photo, mask, (x, y, radius) in zip(photos, masks, discs, strict=True):
        assert mask is not None and mask.mode == "L" and mask.size == photo.size
        values = np.asarray(mask, dtype=float) / 255
        down, across = np.mgrid[: photo.height, : photo.width]
        away = np.hypot(across - x, down - y)
        assert values[away < 0.6 * radius].mean() > 3 * values[away > 1.6 * radius].mean()
