"""Photos as tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dbcli.diffusion.images import RANDOM_CROPS, Posterior, crop_box, photo_variants, to_image, to_tensor


def test_a_wide_picture_loses_its_sides_and_is_not_squashed() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 255, 0), (10, 0, 20, 10))
    tensor = to_tensor(image, 10)
    assert tensor.shape == (3, 10, 10)
    # only the green middle is left: red -1, green +1, blue -1
    assert tensor.mean((1, 2)).tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize(
    ("across", "expected"), [(0.0, (0, 0, 10, 10)), (0.5, (10, 0, 20, 10)), (1.0, (20, 0, 30, 10))]
)
def test_the_crop_slides_along_the_longer_side(across: float, expected: tuple[int, ...]) -> None:
    assert crop_box(30, 10, across, 0.3) == expected


def test_pixels_survive_the_way_there_and_back() -> None:
    image = Image.frombytes("RGB", (8, 8), bytes(range(192)))
    assert to_image(to_tensor(image, 8)).tobytes() == image.tobytes()


def test_values_outside_the_range_are_clipped() -> None:
    assert to_image(torch.full((3, 1, 1), 3.0)).getpixel((0, 0)) == (255, 255, 255)


def test_flips_double_the_views_and_mirror_them(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.frombytes("RGB", (8, 8), bytes(range(192))).save(path)
    plain, mirrored = photo_variants(path, 8, crop="center", flip=True, seed=0, number=0)
    assert torch.equal(plain.flip(-1), mirrored)


def test_random_crops_follow_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((16, 64)).convert("RGB").save(path)
    one = photo_variants(path, 8, crop="random", flip=False, seed=1, number=0)
    same = photo_variants(path, 8, crop="random", flip=False, seed=1, number=0)
    other = photo_variants(path, 8, crop="random", flip=False, seed=2, number=0)
    assert len(one) == RANDOM_CROPS
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_posterior_draws_mean_plus_deviation_times_noise() -> None:
    posterior = Posterior(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([0.5, 0.25]).view(2, 1, 1, 1))
    drawn = posterior.draw([1, 0], torch.tensor([4.0, 2.0]).view(2, 1, 1, 1))
    # 2 + 0.25 * 4 = 3 and 1 + 0.5 * 2 = 2
    assert drawn.flatten().tolist() == [3.0, 2.0]
