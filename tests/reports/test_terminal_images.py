from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dbcli.reports.terminal_images import cells, png_of, strip


def test_a_cell_holds_the_colours_of_its_two_halves() -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    image.paste((0, 0, 255), (0, 2, 4, 4))
    image = image.resize((4, 2), Image.Resampling.NEAREST)
    assert cells(image, 4) == [[((255, 0, 0), (0, 0, 255))] * 4]


def test_a_cell_is_twice_as_high_as_wide() -> None:
    assert len(cells(Image.new("RGB", (64, 64)), 24)) == 12


def test_pictures_stand_side_by_side_with_a_gap(tmp_path: Path) -> None:
    files = []
    for number, colour in enumerate(("red", "blue")):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (32, 32), colour).save(files[-1])
    joined = strip(files, 32)
    assert joined.size == (66, 32)
    assert joined.getpixel((0, 0)) == (255, 0, 0)
    assert joined.getpixel((65, 31)) == (0, 0, 255)
    assert png_of(joined).startswith(b"\x89PNG")


def test_no_picture_is_no_strip() -> None:
    with pytest.raises(ValueError):
        strip([], 32)
