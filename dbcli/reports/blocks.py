"""Grids of few images per prompt: several prompts side by side, each under its label, so that little stays white."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from PIL import Image, ImageDraw

from dbcli.reports.grids import INK, LINE_HEIGHT, PHOTO_GROUND, Font, GridRow, load_font, square_tile, wrapped, write

LEAST_ACROSS, MOST_ACROSS = 2, 8
LABEL_LINES = 3


def draw_blocks(rows: Sequence[GridRow], *, tile_px: int = 160, title: str | None = None) -> Image.Image:
    """Every row's tiles under its label, rows one after another from left to right, as an RGB image.

    A row is split only where it is wider than the whole. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a grid needs at least one row")
    across = _across([max(1, len(row.images)) for row in rows])
    sizes = _Sizes(tile_px)
    lines = list(_lines([part for row in rows for part in _parts(row, across)], across))
    labels = [[sizes.wrapped(block) for block in line] for line in lines]
    above = [round(max(len(text) for text in line) * sizes.letters * LINE_HEIGHT) + sizes.gap for line in labels]
    width = 2 * sizes.margin + across * sizes.step - sizes.gap
    title_font = load_font(round(sizes.letters * 1.45), bold=True)
    title_lines = wrapped(title, title_font, width - 2 * sizes.margin, 2)
    y = sizes.margin + round(len(title_lines) * title_font.size * 1.5)
    height = y + sum(above) + len(lines) * (sizes.step + sizes.gap) + sizes.margin - sizes.gap
    grid = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(grid)
    write(pen, (sizes.margin, sizes.margin), title_lines, title_font, INK)
    for line, texts, room in zip(lines, labels, above, strict=True):
        x = sizes.margin
        for block, words in zip(line, texts, strict=True):
            _draw_block(grid, pen, block, words, (x, y, y + room), sizes)
            x += _size(block) * sizes.step
        y += room + sizes.step + sizes.gap
    return grid


class _Sizes:
    """Every length of such a grid, in pixels, from the side of a tile."""

    def __init__(self, tile: int) -> None:
        self.tile = tile
        self.gap = max(4, tile // 24)
        self.step = tile + self.gap
        self.margin = max(10, tile // 10)
        self.letters = max(12, tile // 11)

    def font(self, block: GridRow) -> Font:
        return load_font(self.letters, bold=block.is_photos)

    def wrapped(self, block: GridRow) -> list[str]:
        """The block's label, as wide as its tiles."""
        width = _size(block) * self.step - self.gap
        return wrapped(block.label, self.font(block), width, LABEL_LINES)


def _draw_block(
    grid: Image.Image,
    pen: ImageDraw.ImageDraw,
    block: GridRow,
    words: Sequence[str],
    place: tuple[int, int, int],
    sizes: _Sizes,
) -> None:
    """One block: its label from `place`'s second value on, its tiles at the third; the first is its left edge."""
    x, y, tiles_y = place
    if block.is_photos:
        half = sizes.gap // 2
        right = x + _size(block) * sizes.step - sizes.gap
        pen.rectangle((x - half, y - half, right + half, tiles_y + sizes.tile + half), fill=PHOTO_GROUND)
    write(pen, (x, y), words, sizes.font(block), INK)
    for number, image in enumerate(block.images):
        if image is not None:
            grid.paste(square_tile(image, sizes.tile), (x + number * sizes.step, tiles_y))


def _size(block: GridRow) -> int:
    return max(1, len(block.images))


def _across(sizes: Sequence[int]) -> int:
    """How many tiles stand side by side: the number that leaves the fewest places empty, the wider of equals."""
    widest = min(MOST_ACROSS, max(sizes))
    least = max(LEAST_ACROSS, widest)
    choices = range(least, max(least, min(MOST_ACROSS, sum(sizes))) + 1)
    return min(choices, key=lambda across: (_empty(sizes, across), -across))


def _empty(sizes: Sequence[int], across: int) -> float:
    """The share of places that stay empty."""
    blocks = [min(across, size - start) for size in sizes for start in range(0, size, across)]
    lines, used = 1, 0
    for size in blocks:
        if used + size > across:
            lines, used = lines + 1, 0
        used += size
    return 1 - sum(blocks) / (lines * across)


def _parts(row: GridRow, across: int) -> Iterator[GridRow]:
    """The row in pieces that fit a line; only the first bears the label."""
    for start in range(0, max(1, len(row.images)), across):
        label = row.label if start == 0 else ""
        yield replace(row, label=label, images=row.images[start : start + across])


def _lines(blocks: Sequence[GridRow], across: int) -> Iterator[list[GridRow]]:
    line: list[GridRow] = []
    for block in blocks:
        if line and sum(_size(one) for one in line) + _size(block) > across:
            yield line
            line = []
        line.append(block)
    if line:
        yield line
