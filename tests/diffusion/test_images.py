"""Photos as tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dbcli.diffusion.images import (
    RANDOM_CROPS,
    Posterior,
    crop_box,
    crop_boxes,
    photo_variants,
    to_image,
    to_tensor,
)


def test_a_wide_picture_loses_its_sides_and_is_not_squashed() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 255, 0), (10, 0, 20, 10))
    tensor = to_tensor(image, (10, 10))
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
    assert to_image(to_tensor(image, (8, 8))).tobytes() == image.tobytes()


def test_values_outside_the_range_are_clipped() -> None:
    assert to_image(torch.full((3, 1, 1), 3.0)).getpixel((0, 0)) == (255, 255, 255)


def test_flips_double_the_views_and_mirror_them(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.frombytes("RGB", (8, 8), bytes(range(192))).save(path)
    plain, mirrored = photo_variants(path, (8, 8), flip=True)
    assert torch.equal(plain.flip(-1), mirrored)


def test_random_crops_follow_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((16, 64)).convert("RGB").save(path)
    one, same, other = (crop_boxes("random", 16, 64, seed=seed, number=0) for seed in (1, 1, 2))
    assert one == same != other
    views = photo_variants(path, (8, 8), one)
    assert len(views) == RANDOM_CROPS
    assert not any(torch.equal(views[0], view) for view in views[1:])


def test_a_posterior_draws_mean_plus_deviation_times_noise() -> None:
    posterior = Posterior(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([0.5, 0.25]).view(2, 1, 1, 1))
    drawn = posterior.draw([1, 0], torch.tensor([4.0, 2.0]).view(2, 1, 1, 1))
    # 2 + 0.25 * 4 = 3 and 1 + 0.5 * 2 = 2
    assert drawn.flatten().tolist() == [3.0, 2.0]


def masked_photo(folder: Path, subject: tuple[int, int, int, int]) -> Path:
    """The mask of a photo of 200 x 100 px with its subject in one rectangle."""
    mask = Image.new("L", (200, 100))
    mask.paste(255, subject)
    mask.save(folder / "mask.png")
    return folder / "mask.png"


def test_a_crop_around_the_subject_holds_it_and_little_else(tmp_path: Path) -> None:
    # 32 x 32 fields of 6.25 x 3.125 px: the rectangle lies on their edges.
    mask = masked_photo(tmp_path, (150, 25, 175, 50))
    (box,) = crop_boxes("subject", 200, 100, seed=0, number=0, mask=mask)
    # Its 25 px take 76 % of a side of 32.895 px, whose middle is the subject's own: 162.5, 37.5.
    assert box == pytest.approx((146.0526, 21.0526, 178.9474, 53.9474), abs=1e-3)


def test_a_crop_around_a_subject_at_the_edge_stays_in_the_photo(tmp_path: Path) -> None:
    (box,) = crop_boxes("subject", 200, 100, seed=0, number=0, mask=masked_photo(tmp_path, (175, 75, 200, 100)))
    # A side of 32.895 px, moved until its right and lower edges are the photo's.
    assert box == pytest.approx((167.1053, 67.1053, 200, 100), abs=1e-3)


def test_a_subject_as_large_as_the_photo_is_cropped_to_the_largest_square(tmp_path: Path) -> None:
    mask = masked_photo(tmp_path, (0, 0, 200, 100))
    assert crop_boxes("subject", 200, 100, seed=0, number=0, mask=mask) == [(50, 0, 150, 100)]


def test_without_a_mask_the_crop_around_the_subject_is_the_centre() -> None:
    assert crop_boxes("subject", 200, 100, seed=0, number=0) == [(50, 0, 150, 100)]
