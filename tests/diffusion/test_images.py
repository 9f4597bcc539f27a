"""Photos as tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from dbcli.diffusion import images
from dbcli.diffusion.buckets import Size, size_for
from dbcli.diffusion.images import (
    RANDOM_CROPS,
    Posterior,
    crop_box,
    crop_boxes,
    encode,
    encode_sizes,
    encoded_at_once,
    photo_variants,
    to_image,
    to_tensor,
)
from tests.diffusion import tiny_models


def test_a_wide_picture_loses_its_sides_and_is_not_squashed() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 255, 0), (10, 0, 20, 10))
    tensor = to_tensor(image, (10, 10))
    assert tensor.shape == (3, 10, 10)
    # only the green middle is left: red -1, green +1, blue -1
    assert tensor.mean((1, 2)).tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (300, 300), (480, 270), (240, 360)])
def test_a_circle_stays_a_circle_in_every_shape(shape: Size) -> None:
    image = Image.new("RGB", shape)
    x, y = shape[0] / 2, shape[1] / 2
    ImageDraw.Draw(image).ellipse((x - 60, y - 60, x + 60, y + 60), fill="white")
    size = size_for(shape, [(208, 304), (256, 256), (288, 224), (336, 192)])
    white = to_tensor(image, size)[0] > 0
    assert white.shape == (size[1], size[0])
    assert abs(int(white.any(0).sum()) - int(white.any(1).sum())) <= 1


def test_a_crop_of_another_shape_is_the_largest_there_is_and_slides_with_the_rest() -> None:
    # 3:2 of 300 x 100 is 150 x 100; of 100 x 300 it is 100 x 66.7.
    assert crop_box(300, 100, 0.0, 0.5, aspect=1.5) == (0, 0, 150, 100)
    assert crop_box(100, 300, 0.5, 1.0, aspect=1.5) == pytest.approx((0, 233.333, 100, 300), abs=1e-3)


def test_a_wide_crop_around_the_subject_is_as_high_as_the_subject_needs(tmp_path: Path) -> None:
    mask = masked_photo(tmp_path, (150, 25, 175, 50))
    (box,) = crop_boxes("subject", 200, 100, seed=0, number=0, mask=mask, aspect=1.5)
    # 25 px are 76 % of a height of 32.895; the width is 49.342, moved to the left as far as 200 px need: not at all.
    assert box == pytest.approx((162.5 - 24.671, 21.0526, 162.5 + 24.671, 53.9474), abs=1e-3)


def test_images_of_several_sizes_are_encoded_as_each_would_be_alone() -> None:
    vae = tiny_models.model().vae
    pixels = [torch.rand(3, *side) for side in ((64, 64), (32, 96), (64, 64), (96, 32), (32, 96))]
    found, alone = encode_sizes(vae, pixels), [encode(vae, [one]) for one in pixels]
    assert [found.shape_of(index)[1:] for index in range(5)] == [(8, 8), (4, 12), (8, 8), (12, 4), (4, 12)]
    noise = torch.rand(2, 4, 4, 12)
    expected = [alone[index].draw([0], noise[row : row + 1])[0] for row, index in enumerate((4, 1))]
    torch.testing.assert_close(found.draw([4, 1], noise), torch.stack(expected), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="unpack"):
        found.draw([0, 1], noise)


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


def test_images_of_1024_px_are_encoded_one_by_one_and_those_up_to_768_px_by_fours() -> None:
    assert [encoded_at_once(*size) for size in ((512, 512), (768, 768), (1024, 1024), (1216, 832))] == [4, 4, 1, 1]


def test_large_images_are_encoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGE_PX", 32 * 32)
    counts: list[int] = []
    pixels = [torch.zeros(3, 32, 40)] * 3
    found = encode(tiny_models.model().vae, pixels, on_batch=counts.append)
    assert counts == [1, 1, 1] and len(found) == 3
