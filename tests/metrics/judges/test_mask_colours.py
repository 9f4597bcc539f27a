"""Drafts of masks made sharp by colour: discs on grounds, whose masks are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dbcli.metrics.judges.mask_colours import SIDE_PX, sharpened, small
from tests.metrics.judges.discs import BLUE, GREEN, RED, disc, draft_of, overlap, photo_of


def test_a_draft_ends_where_the_colour_does() -> None:
    true = disc(40, 52, 22)
    draft = draft_of(true)
    (found,) = sharpened([photo_of(true, RED, BLUE)], [draft])
    before = F.interpolate(draft[None, None], (96, 96), mode="bicubic")[0, 0]
    assert overlap(before, true) < 0.9 < 0.97 < overlap(found, true)
    assert float(found[true.bool()].mean()) > 0.85 and float(found[~true.bool()].mean()) < 0.05


def test_colours_of_the_other_photos_speak_for_what_a_draft_left_unsure() -> None:
    # A thing that is red on its left and yellow on its right; the third photo's draft is unsure of the yellow.
    things, photos = [disc(40, 52, 22), disc(60, 40, 20), disc(48, 48, 24)], []
    for one, centre, ground in zip(things, (40, 60, 48), (BLUE, GREEN, (90, 90, 90)), strict=True):
        photo = photo_of(one, RED, ground)
        right = one.bool() & (torch.arange(96) >= centre)
        photo[:, right] = torch.tensor([230, 210, 60], dtype=torch.uint8)[:, None]
        photos.append(photo)
    drafts = [draft_of(one) for one in things]
    drafts[2] = draft_of(things[2] * torch.where(torch.arange(96) < 48, 1.0, 0.2))
    yellow = things[2].bool() & (torch.arange(96) > 52)
    (alone,) = sharpened(photos[2:], drafts[2:])
    together = list(sharpened(photos, drafts))[2]
    assert float(together[yellow].mean()) > float(alone[yellow].mean()) + 0.05
    assert float(together[yellow].mean()) > 0.55


def test_a_photo_of_one_colour_keeps_its_draft() -> None:
    draft = draft_of(disc(40, 52, 22))
    flat = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    (found,) = sharpened([flat], [draft])
    before = F.interpolate(draft[None, None], (96, 96), mode="bicubic")[0, 0]
    assert float((found - before).abs().mean()) < 0.05


@pytest.mark.parametrize(("size", "expected"), [((400, 200), (96, 192)), ((30, 60), (192, 96)), ((1000, 1), (1, 192))])
def test_photos_are_looked_at_with_their_own_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    found = small(Image.new("RGB", size, RED))
    assert found.shape == (3, *expected) and max(found.shape) == SIDE_PX
    assert found[:, 0, 0].tolist() == list(RED)
    (mask,) = sharpened([found], [torch.ones(32, 32) * 0.7])
    assert mask.shape == expected and bool(mask.isfinite().all())
