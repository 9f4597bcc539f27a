"""Grids: where tiles land, what labels may hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dbcli.reports.grids import MISSING_GLYPH, GridRow, draw_grid, drawable, load_font, wrap_text


def tiles(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (64, 48), colour) for colour in colours]


def share(grid: Image.Image, colour: tuple[int, int, int]) -> int:
    return dict((found, count) for count, found in grid.getcolors(1 << 20) or []).get(colour, 0)


def test_every_tile_is_drawn_whole() -> None:
    grid = draw_grid(
        [GridRow("photos", tiles("red", "lime"), is_photos=True), GridRow("in space", tiles("blue"))],
        tile_px=50,
    )
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert share(grid, colour) == 50 * 50


def test_rows_stand_under_each_other_in_order() -> None:
    grid = draw_grid([GridRow("a", tiles("red")), GridRow("b", tiles("blue"))], tile_px=40)
    right = grid.width - grid.width // 10
    column = [grid.getpixel((right - 20, y)) for y in range(grid.height)]
    assert column.index((255, 0, 0)) < column.index((0, 0, 255))


def test_more_tiles_than_columns_go_on_beneath() -> None:
    wide = draw_grid([GridRow("a", tiles(*["red"] * 7))], tile_px=40)
    folded = draw_grid([GridRow("a", tiles(*["red"] * 7))], tile_px=40, columns=3)
    assert folded.width < wide.width
    assert folded.height > wide.height + 2 * 40
    assert share(folded, (255, 0, 0)) == 7 * 40 * 40


def test_tiles_are_cropped_to_the_middle_not_squashed() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    assert share(draw_grid([GridRow("a", [image])], tile_px=50), (255, 0, 0)) == 0


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    assert share(draw_grid([GridRow("", [clear])], tile_px=30), (255, 0, 0)) == 0


def test_a_title_headings_and_notes_make_room_for_themselves() -> None:
    rows = [GridRow("in space", tiles("red", "lime"), note="DINO 0.712")]
    plain = draw_grid(rows, tile_px=64)
    full = draw_grid(rows, tile_px=64, title="0003-dog", headings=["seed 0", "seed 1", "one too many"])
    assert full.height > plain.height
    assert full.width == plain.width


def test_a_label_makes_ink() -> None:
    empty, labelled = (draw_grid([GridRow(label, tiles("red"))], tile_px=64) for label in ("", "in space"))
    assert share(labelled, (255, 255, 255)) < share(empty, (255, 255, 255))


HOSTILE = ["", "🐶" * 500, "a" * 5000, "\x00\x1b[31m\r\n\t", "\u202eright to left",
           "<script>alert(1)</script>", "\ud83d", "e\u0301" * 50, "$x^2$ \\frac{1}{", 
           "👩‍👩‍👧‍👦 family", "狗在雪地里"]  # fmt: skip


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_keep_the_size_of_a_grid(label: str) -> None:
    grid = draw_grid([GridRow(label, tiles("red"), note=label)], tile_px=128, title=label, headings=[label])
    assert grid.height < 600
    assert share(grid, (255, 0, 0)) == 128 * 128


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(10, 200), st.integers(1, 4))
def test_wrapped_text_never_leaves_its_box(text: str, width: int, lines: int) -> None:
    measure = load_font(12).getlength
    wrapped = wrap_text(drawable(text), width, lines, measure)
    assert len(wrapped) <= lines
    assert all(measure(line) <= width or len(line) <= 2 for line in wrapped)


def test_text_that_fits_loses_no_word() -> None:
    text = "a sks dog on the beach with extraordinarily long names"
    wrapped = wrap_text(text, 70, 50, load_font(12).getlength)
    assert "".join(wrapped).replace(" ", "") == text.replace(" ", "")


def test_cut_text_says_so() -> None:
    assert wrap_text("one two three four five six", 40, 2, load_font(12).getlength)[-1].endswith("…")


def test_drawable_text_is_one_line_of_known_letters() -> None:
    assert drawable("a\tb\n c") == "a b c"
    assert drawable("Cézanne") == drawable("Ce\u0301zanne") == "Cézanne"
    assert drawable("\u202edog\u200b") == "dog"
    assert drawable("a \N{CJK UNIFIED IDEOGRAPH-72D7}") == f"a {MISSING_GLYPH}"


def test_no_rows_or_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        draw_grid([])
    with pytest.raises(ValueError, match="at least 16"):
        draw_grid([GridRow("a", tiles("red"))], tile_px=4)


def test_a_row_without_pictures_keeps_its_place() -> None:
    grid = draw_grid([GridRow("nothing drawn", [])], tile_px=64)
    assert grid.height > 64
