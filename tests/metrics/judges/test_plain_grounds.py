"""Subjects before a plain ground: what differs from the frame's colours, where the frame has few."""

from __future__ import annotations

import pytest
import torch

from dbcli.metrics.judges.mask_colours import sharpened
from dbcli.metrics.judges.plain_grounds import foreground
from tests.metrics.judges.discs import RED, disc, draft_of, overlap, photo_of

WHITE, CREAM, BROWN = (250, 250, 250), (240, 210, 170), (140, 90, 50)


def test_what_differs_from_the_frame_stands_out() -> None:
    true = disc(40, 60, 22)
    found = foreground(photo_of(true, RED, CREAM))
    assert found is not None
    assert overlap(found, true) > 0.97


def test_a_ground_may_have_a_few_colours() -> None:
    true = disc(48, 50, 20)
    photo = photo_of(true, RED, CREAM)
    photo[:, 70:][:, true[70:] == 0] = torch.tensor(BROWN, dtype=torch.uint8)[:, None]
    found = foreground(photo)
    assert found is not None and overlap(found, true) > 0.9


def test_a_subject_that_reaches_out_of_the_photo_stands_out_whole() -> None:
    true = disc(48, 96, 30)
    found = foreground(photo_of(true, RED, WHITE))
    assert found is not None and overlap(found, true) > 0.97


def test_a_ground_of_many_colours_says_nothing() -> None:
    noise = torch.randint(0, 256, (3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert foreground(noise) is None


@pytest.mark.parametrize("ground", [WHITE, CREAM])
def test_a_draft_of_the_ground_that_photos_share_is_turned_round(ground: tuple[int, int, int]) -> None:
    # Photos of one plain ground have it in common, and a draft takes it for the subject.
    true = disc(40, 52, 22)
    (found,) = sharpened([photo_of(true, RED, ground)], [1 - draft_of(true)])
    assert overlap(found, true) > 0.95
    assert float(found[~true.bool()].mean()) < 0.05


def test_a_dark_frame_says_nothing() -> None:
    assert foreground(photo_of(disc(40, 52, 22), RED, (12, 10, 14))) is None
