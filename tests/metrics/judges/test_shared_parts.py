"""Masks of what photos have in common: worked out on maps made by hand, tried on composed photos with the judge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dbcli.metrics.judges.embedded import load_maps
from dbcli.metrics.judges.shared_parts import MOST_COMPARED, compared_with, draft_masks, shared_parts

# Where the subject lies in each of four photos, in places of a 16 x 16 map: left, top, of 6 x 6 places.
SUBJECTS = [(3, 4), (6, 5), (5, 7), (4, 4)]


def maps_by_hand(count: int) -> list[list[torch.Tensor]]:
    """The maps of photos, one stage: noise of its own in every place, and one direction in those of the subject."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 64, 16, 16, generator=generator)
    common = torch.randn(64, generator=generator)
    for place, row in enumerate(values):
        left, top = SUBJECTS[place % len(SUBJECTS)]
        row[:, top : top + 6, left : left + 6] = common[:, None, None] * 2 + 0.3 * row[:, :6, :6]
    return [[row] for row in values]


@pytest.mark.parametrize(("count", "wanted"), [(4, [0, 1, 2, 3]), (4, [2]), (30, [0, 1, 29])])
def test_what_all_photos_hold_is_white_and_what_one_holds_is_black(count: int, wanted: list[int]) -> None:
    found = list(shared_parts(maps_by_hand(count), wanted))
    assert len(found) == len(wanted)
    for mask, place in zip(found, wanted, strict=True):
        left, top = SUBJECTS[place % len(SUBJECTS)]
        assert mask.shape == (32, 32) and float(mask.min()) >= 0 and float(mask.max()) == pytest.approx(1)
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[2 * top + 2 : 2 * top + 10, 2 * left + 2 : 2 * left + 10] = True
        near = torch.zeros(32, 32, dtype=torch.bool)
        near[2 * top - 2 : 2 * top + 14, 2 * left - 2 : 2 * left + 14] = True
        assert float(mask[inside].mean()) > 0.6
        assert float(mask[~near].mean()) < 0.1


def test_one_photo_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        list(shared_parts(maps_by_hand(1), [0]))


@pytest.mark.parametrize(("own", "count", "others"), [(1, 3, [0, 2]), (0, 9, [1, 2, 3, 4, 5, 6, 7, 8])])
def test_a_photo_of_a_few_is_compared_with_all_others(own: int, count: int, others: list[int]) -> None:
    assert compared_with(own, count) == others


@pytest.mark.parametrize("own", [0, 250, 499])
def test_a_photo_of_many_is_compared_with_a_few_from_first_to_last(own: int) -> None:
    others = compared_with(own, 500)
    assert len(set(others)) == MOST_COMPARED and own not in others
    assert min(others) < 500 / MOST_COMPARED and max(others) > 500 - 2 * 500 / MOST_COMPARED


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
    masks = draft_masks(load_maps(), iter(photos), range(3))
    for photo, mask, (x, y, radius) in zip(photos, masks, discs, strict=True):
        assert mask.mode == "L" and mask.size == photo.size
        values = np.asarray(mask, dtype=float) / 255
        down, across = np.mgrid[: photo.height, : photo.width]
        away = np.hypot(across - x, down - y)
        assert values[away < 0.6 * radius].mean() > 3 * values[away > 1.6 * radius].mean()
