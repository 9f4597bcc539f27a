"""Faults of photos, on pictures whose fault was put there."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from dbcli.metrics.photo_faults import (
    BLURRED,
    BRIGHT,
    DARK,
    has_bars,
    look_at,
    middle_square,
    near_duplicates,
    same_background,
    softness,
    subject_share,
)


def scene(seed: int, ground: tuple[int, int, int] = (120, 120, 120), size: tuple[int, int] = (640, 512)) -> Image.Image:
    """Random sharp rectangles in the middle of a plain ground."""
    random = np.random.default_rng(seed)
    pixels = np.empty((size[1], size[0], 3), dtype=np.uint8)
    pixels[:] = ground
    for _ in range(60):
        left, top = random.integers(120, size[0] - 180), random.integers(100, size[1] - 80)
        width, height = random.integers(8, 80, size=2)
        pixels[top : top + height, left : left + width] = random.integers(0, 256, size=3)
    return Image.fromarray(pixels)


def test_a_sharp_picture_is_not_soft_and_a_blurred_one_is() -> None:
    sharp = scene(1)
    assert look_at(sharp).softness < BLURRED
    assert look_at(sharp.filter(ImageFilter.GaussianBlur(5))).softness > BLURRED


def test_a_sharp_subject_before_a_blurred_background_is_no_fault() -> None:
    photo = scene(1).filter(ImageFilter.GaussianBlur(6))
    photo.paste(scene(1).crop((200, 150, 420, 370)), (200, 150))
    assert look_at(photo).softness < BLURRED


def test_an_enlarged_picture_is_as_soft_as_it_looks() -> None:
    assert look_at(scene(1).resize((80, 64)).resize((640, 512), Image.Resampling.BICUBIC)).softness > BLURRED


def test_nothing_is_said_of_a_picture_without_texture() -> None:
    assert softness(np.full((512, 512), 128, dtype=np.float32)) == 0.0


@pytest.mark.parametrize("change", ["re-encoded", "smaller", "mirrored", "cropped"])
def test_copies_of_one_picture_are_near_duplicates(change: str) -> None:
    photo = scene(3)
    if change == "re-encoded":
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=40)
        copy = Image.open(buffer).convert("RGB")
    elif change == "smaller":
        copy = photo.resize((320, 256))
    elif change == "mirrored":
        copy = ImageOps.mirror(photo)
    else:
        copy = photo.crop((12, 10, 628, 502))
    assert near_duplicates([look_at(photo), look_at(copy)]) == [(0, 1)]


def test_different_pictures_on_the_same_ground_are_no_duplicates() -> None:
    assert near_duplicates([look_at(scene(seed)) for seed in range(4)]) == []


def test_two_plain_pictures_are_not_called_duplicates_of_each_other() -> None:
    plain = [look_at(Image.new("RGB", (100, 100), colour)) for colour in ("red", "red")]
    assert near_duplicates(plain) == []


def test_a_background_most_photos_share_is_found_with_the_photos_that_share_it() -> None:
    shared = [scene(seed, (200, 180, 60)) for seed in range(3)]
    other = scene(9, (20, 60, 200))
    assert same_background([look_at(photo) for photo in [*shared, other]]) == [0, 1, 2]


def test_different_backgrounds_and_two_photos_alone_are_no_fault() -> None:
    grounds = [(200, 180, 60), (20, 60, 200), (30, 160, 30)]
    looks = [look_at(scene(seed, ground)) for seed, ground in enumerate(grounds)]
    assert same_background(looks) == []
    assert same_background([looks[0], looks[0]]) == []
    assert same_background([]) == []


def test_brightness_is_told_by_nearly_all_of_a_photo_not_by_its_mean() -> None:
    dark, light = look_at(Image.new("RGB", (90, 90), (9, 9, 9))), look_at(Image.new("RGB", (90, 90), (250, 250, 250)))
    assert dark.brightest < DARK
    assert light.darkest > BRIGHT
    lamp = Image.new("RGB", (90, 90), (0, 0, 0))
    lamp.paste((255, 255, 255), (0, 0, 40, 40))
    assert look_at(lamp).brightest > DARK


def test_a_photo_may_be_soft_at_a_large_resolution_and_sharp_at_a_small_one() -> None:
    photo = scene(1, size=(1280, 1024)).filter(ImageFilter.GaussianBlur(6))
    # 3 px of 512, three quarters of a pixel of 128.
    assert look_at(photo, 512).softness > BLURRED
    assert look_at(photo, 128).softness < BLURRED
    assert look_at(photo.filter(ImageFilter.GaussianBlur(16)), 128).softness > BLURRED


def test_the_middle_square_is_what_a_centre_crop_keeps() -> None:
    photo = Image.new("RGB", (90, 40), "red")
    photo.paste("blue", (25, 0, 65, 40))
    assert middle_square(photo).size == (40, 40)
    assert middle_square(photo).getcolors() == [(1600, (0, 0, 255))]


def barred(*edges: str, px: int = 40, ground: tuple[int, int, int] = (120, 120, 120)) -> Image.Image:
    """A square of 400 px, the middle sixteenth of it black, with black bars at edges, as a JPEG has them."""
    square = Image.new("RGB", (400, 400), ground)
    square.paste("black", (150, 150, 250, 250))
    bars = {"left": (0, 0, px, 400), "right": (400 - px, 0, 400, 400)}
    bars |= {"top": (0, 0, 400, px), "bottom": (0, 400 - px, 400, 400)}
    for edge in edges:
        square.paste((6, 3, 5), bars[edge])
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("edges", [("top", "bottom"), ("left", "right"), ("left", "right", "top", "bottom")])
@pytest.mark.parametrize("px", [16, 100])
def test_black_bars_at_opposite_edges_are_found(edges: tuple[str, ...], px: int) -> None:
    assert has_bars(barred(*edges, px=px))
    assert look_at(barred(*edges, px=px)).bars


@pytest.mark.parametrize("edges", [(), ("top",), ("left", "top")])
def test_one_dark_edge_is_no_pair_of_bars(edges: tuple[str, ...]) -> None:
    assert not has_bars(barred(*edges))


def test_bars_that_the_crop_leaves_out_a_black_photo_and_a_dark_one_are_no_fault() -> None:
    wide = Image.new("RGB", (800, 400))
    wide.paste(barred(), (200, 0))
    assert not look_at(wide).bars
    assert not has_bars(Image.new("RGB", (400, 400)))
    slope = np.minimum(np.arange(400), np.arange(400)[::-1]).astype(np.uint8)  # darkness that lifts slowly
    assert not has_bars(Image.fromarray(np.broadcast_to(slope, (400, 400))).convert("RGB"))


@pytest.mark.parametrize("side", [80, 160, 320])
def test_a_thing_before_a_plain_background_has_the_share_of_its_area(side: int) -> None:
    square = Image.new("RGB", (640, 640), (200, 205, 210))
    square.paste((220, 160, 20), (180, 160, 180 + side, 160 + side))
    assert subject_share(square) == pytest.approx((side / 640) ** 2, abs=0.01)


def test_nothing_is_said_of_a_subject_s_size_before_many_colours_or_without_one() -> None:
    many = np.random.default_rng(1).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    assert subject_share(Image.fromarray(many).resize((640, 640), Image.Resampling.NEAREST)) is None
    assert subject_share(Image.new("RGB", (640, 640), "white")) is None


def test_a_shadow_on_the_background_is_no_subject() -> None:
    square = Image.new("RGB", (640, 640), (200, 200, 200))
    square.paste((182, 182, 182), (200, 200, 400, 400))
    assert subject_share(square) is None
