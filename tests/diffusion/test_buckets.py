"""In which sizes photos of several shapes are trained, how much of each is lost, and what is told of the cut."""

from __future__ import annotations

import random

import pytest

from dbcli.diffusion.buckets import Size, cut_away, frame_of, size_for, sizes_of, training_sizes

# 4:3, 3:4, square, 16:9 and 2:3.
FIVE = [(4000, 3000), (3000, 4000), (1000, 1000), (1920, 1080), (2000, 3000)]
XL = {"grid_px": 32, "step_px": 8}


def test_what_is_cut_away_is_what_lies_outside_of_the_largest_part_of_the_same_proportions() -> None:
    # 4:3 as a square keeps 3000 x 3000 of 4000 x 3000; as 2:3 it keeps 2000 x 3000.
    assert cut_away((4000, 3000), (64, 64)) == 0.25
    assert cut_away((4000, 3000), (64, 96)) == 0.5
    assert cut_away((4000, 3000), (96, 72)) == 0.0


def test_five_photos_of_five_shapes_at_1024_px_get_four_sizes_of_one_area() -> None:
    sizes = training_sizes("auto", FIVE, 1024, **XL)
    assert sizes == [(832, 1216), (1024, 1024), (1152, 896), (1344, 768)]
    # 3:4 is 0.75 wide and 832:1216 is 0.684 wide: 1 - 0.684 / 0.75 = 0.0877 is lost.
    assert size_for((3000, 4000), sizes) == (832, 1216)
    assert cut_away((3000, 4000), (832, 1216)) == pytest.approx(0.0877, abs=1e-4)
    assert [size_for(one, sizes) for one in FIVE if one != (3000, 4000)] == [
        (1152, 896),
        (1024, 1024),
        (1344, 768),
        (832, 1216),
    ]


@pytest.mark.parametrize(("resolution", "grid"), [(1024, 32), (768, 64), (512, 64), (128, 32), (64, 16)])
def test_of_no_photo_more_than_12_percent_is_cut_and_no_size_is_larger_than_the_square(
    resolution: int, grid: int
) -> None:
    chance = random.Random(7)
    for _ in range(40):
        wide = [4 ** chance.uniform(-1, 1) for _ in range(5)]
        shapes = [(round(1000 * one), 1000) for one in wide]
        sizes = training_sizes("auto", shapes, resolution, grid_px=grid, step_px=8)
        assert all(cut_away(shape, size_for(shape, sizes)) <= 0.12 for shape in shapes)
        assert all(width * height <= resolution**2 for width, height in sizes)
        assert all(side % 8 == 0 for size in sizes for side in size)
        assert {size_for(shape, sizes) for shape in shapes} == set(sizes)


def test_at_1024_px_sizes_are_multiples_of_64_and_at_512_of_what_its_denoiser_halves() -> None:
    for resolution, grid in ((1024, 32), (512, 64)):
        sizes = training_sizes("auto", FIVE, resolution, grid_px=grid, step_px=8)
        assert all(side % 64 == 0 for size in sizes for side in size)


def test_squares_alone_stay_what_they_are_without_buckets() -> None:
    square: list[Size] = [(96, 96), (500, 500)]
    assert training_sizes("auto", square, 512, grid_px=64, step_px=8) == [(512, 512)]
    assert training_sizes("off", FIVE, 512, grid_px=64, step_px=8) == [(512, 512)]
    assert training_sizes("auto", [], 512, grid_px=64, step_px=8) == [(512, 512)]


def test_sizes_do_not_depend_on_the_order_of_the_photos() -> None:
    assert training_sizes("auto", FIVE[::-1], 1024, **XL) == training_sizes("auto", FIVE, 1024, **XL)


def test_photos_of_nearly_one_shape_share_a_size() -> None:
    # 3:4, 0.75, and 2:3, 0.667: the size between them loses at most 12 % of either.
    assert len(training_sizes("auto", [(3000, 4000), (2000, 3000)], 1024, **XL)) == 1


def test_the_sizes_of_a_square_of_four_units() -> None:
    # Four units in all, and at least three.
    assert set(sizes_of(64, 32)) == {(64, 64), (128, 32), (32, 128), (96, 32), (32, 96)}


def test_a_frame_says_the_photo_s_size_where_it_was_cut_and_the_size_now() -> None:
    # A photo of 400 x 300, cut to 378 x 294 of it, that is 9:7: 11 px at either side and 3 above, scaled by 1152 / 378.
    box = (11.0, 3.0, 389.0, 297.0)
    assert frame_of((400, 300), box, (1152, 896)) == (300, 400, round(3 * 896 / 294), round(11 * 1152 / 378), 896, 1152)
    assert frame_of((400, 300), box, (1152, 896))[2:4] == (9, 34)


def test_the_frame_of_a_mirrored_part_begins_at_the_photo_s_other_edge() -> None:
    # 100 of 400 px are left of the part, 50 right of it; it is shown at half its size.
    box = (100.0, 0.0, 350.0, 250.0)
    assert frame_of((400, 250), box, (125, 125))[3] == 50
    assert frame_of((400, 250), box, (125, 125), mirrored=True)[3] == 25


def test_a_part_around_a_subject_is_framed_as_a_photo_of_its_own() -> None:
    assert frame_of((4000, 3000), (2000.0, 1500.0, 2200.0, 1650.0), (1152, 896), is_whole=True) == (
        150,
        200,
        0,
        0,
        896,
        1152,
    )
