"""Grids of few images a prompt: little stays white, and every label stands over its own images."""

from __future__ import annotations

import pytest
from PIL import Image

from dbcli.reports.blocks import draw_blocks
from dbcli.reports.grids import GridRow, draw_grid

INKED = (200, 30, 30)


def rows(prompts: int, images: int, photos: int = 5) -> list[GridRow]:
    tile = Image.new("RGB", (32, 32), INKED)
    generated = [GridRow(f"a sks dog in scene {number}", [tile] * images) for number in range(prompts)]
    return [GridRow("photos of dog", [tile] * photos, is_photos=True), *generated]


def covered(grid: Image.Image) -> float:
    counts = {colour: count for count, colour in grid.getcolors(1 << 24) or []}
    return counts[INKED] / (grid.width * grid.height)


@pytest.mark.parametrize(("prompts", "images"), [(1, 1), (1, 2), (4, 1), (4, 2), (15, 2), (25, 1), (3, 3)])
def test_most_of_a_grid_is_images(prompts: int, images: int) -> None:
    grid = draw_blocks(rows(prompts, images), title="0001-dog")
    assert covered(grid) > 0.55
    assert covered(grid) > covered(draw_grid(rows(prompts, images), tile_px=160, title="0001-dog"))


def test_every_tile_is_drawn_whole_and_no_grid_is_wider_than_eight() -> None:
    grid = draw_blocks(rows(10, 2, photos=11), tile_px=40)
    counts = {colour: count for count, colour in grid.getcolors(1 << 24) or []}
    assert counts[INKED] == (11 + 20) * 40 * 40
    assert grid.width < 9 * 45


def test_a_label_makes_ink_over_its_own_images_and_nowhere_else() -> None:
    tile = Image.new("RGB", (32, 32), INKED)
    plain, labelled = (
        draw_blocks([GridRow("a", [tile] * 2), GridRow(label, [tile] * 2), GridRow("b", [tile] * 4)], tile_px=64)
        for label in ("a", "a word " * 60)
    )
    assert labelled.height > plain.height
    first = labelled.crop((0, 0, 10 + 2 * 68 - 4, 40))
    assert not any(first.getpixel((x, y)) == (27, 31, 36) for y in range(27, 40) for x in range(first.width))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        draw_blocks([])
