"""Images for a terminal: a strip of several, and the same as character cells two pixels high."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Colour = tuple[int, int, int]
# A cell's upper and lower half: with "▀" one is the ink, the other the ground.
Cell = tuple[Colour, Colour]
_GAP_SHARE = 16


def strip(files: Sequence[Path], side_px: int) -> Image.Image:
    """The images side by side as RGB, each scaled to `side_px` high, on black. Raises ValueError without any."""
    if not files:
        raise ValueError("a strip needs at least one image")
    tiles = []
    for file in files:
        with Image.open(file, formats=("PNG",)) as opened:
            image = opened.convert("RGB")
        width = max(1, round(image.width * side_px / image.height))
        tiles.append(image.resize((width, side_px), Image.Resampling.LANCZOS))
    gap = max(1, side_px // _GAP_SHARE)
    joined = Image.new("RGB", (sum(tile.width for tile in tiles) + gap * (len(tiles) - 1), side_px))
    left = 0
    for tile in tiles:
        joined.paste(tile, (left, 0))
        left += tile.width + gap
    return joined


def cells(image: Image.Image, columns: int) -> list[list[Cell]]:
    """The image as rows of `columns` cells; a cell is about twice as high as wide."""
    rows = max(1, round(image.height * columns / image.width / 2))
    small = image.convert("RGB").resize((columns, rows * 2), Image.Resampling.LANCZOS)
    pixels = small.load()
    assert pixels is not None
    return [[(pixels[x, 2 * y], pixels[x, 2 * y + 1]) for x in range(columns)] for y in range(rows)]  # type: ignore[misc]


def png_of(image: Image.Image) -> bytes:
    """The image as PNG bytes, without its recipe: what a terminal shows need not carry it."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
