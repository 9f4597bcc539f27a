"""Subjects on plain colours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dbcli.diffusion.cutouts import COLOURS, colours_of, ground, opacity_variants, scenes_of


def test_every_colour_comes_before_one_comes_twice() -> None:
    names = colours_of(0, 3, len(COLOURS))
    assert sorted(names) == sorted(COLOURS)
    assert colours_of(0, 3, 2) == names[:2]
    assert colours_of(0, 4, len(COLOURS)) != names != colours_of(1, 3, len(COLOURS))


def test_a_ground_has_its_colour_and_a_slight_slope_of_light() -> None:
    found = ground((64, 64), "gray", seed=1, number=0)
    assert found.shape == (3, 64, 64)
    # 140 of 255, at most 15 % lighter or darker, the same from left to right.
    values = (found + 1) * 127.5
    assert float(values.min()) >= 140 * 0.85 and float(values.max()) <= 140 * 1.15
    assert torch.equal(found, found[:, :, :1].expand_as(found))
    assert not torch.equal(found, ground((64, 64), "gray", seed=1, number=1))


@pytest.mark.parametrize(
    ("grey", "opacity"), [(0, 0.0), (255 // 4, 0.0), (128, (128 / 255 - 0.25) / 0.35), (153, 1.0), (255, 1.0)]
)
def test_the_faint_edge_of_a_mask_shows_nothing_and_its_middle_all(tmp_path: Path, grey: int, opacity: float) -> None:
    Image.new("L", (40, 20), grey or 1).save(tmp_path / "mask.png")
    (view,) = opacity_variants(tmp_path / "mask.png", (40, 20), [(10, 0, 30, 20)], (8, 8), flip=False)
    assert view.shape == (1, 8, 8)
    assert torch.allclose(view, torch.tensor(opacity), atol=1e-3)


def test_a_cutout_is_mirrored_with_its_photo(tmp_path: Path) -> None:
    mask = Image.new("L", (20, 20))
    mask.paste(255, (0, 0, 10, 20))
    mask.save(tmp_path / "mask.png")
    plain, mirrored = opacity_variants(tmp_path / "mask.png", (20, 20), [(0, 0, 20, 20)], (20, 20), flip=True)
    assert torch.equal(plain.flip(-1), mirrored)
    assert float(plain[0, :, :9].min()) == 1 and float(plain[0, :, 11:].max()) == 0


def test_photos_go_on_through_the_scenes_before_one_comes_again() -> None:
    scenes = [f"in place {number}" for number in range(6)]
    shown = [one for place in range(3) for one in scenes_of(7, 0, place, 2, scenes)]
    assert sorted(shown) == scenes
    assert scenes_of(7, 0, 3, 2, scenes) == scenes_of(7, 0, 0, 2, scenes)
    assert scenes_of(7, 1, 0, 6, scenes) != scenes_of(7, 0, 0, 6, scenes)


def test_no_photo_is_shown_in_a_scene_twice() -> None:
    assert sorted(scenes_of(0, 0, 1, 9, ["a", "b", "c"])) == ["a", "b", "c"]
    assert scenes_of(0, 0, 0, 0, ["a", "b"]) == []
