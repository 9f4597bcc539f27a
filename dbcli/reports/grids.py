"""Images of images: labelled rows of tiles on white, photos first."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

INK, FAINT_INK, RULE, PHOTO_GROUND = "#1b1f24", "#59636e", "#d0d7de", "#f3f6f9"
MISSING_GLYPH = "\N{WHITE SQUARE}"
Font = ImageFont.FreeTypeFont
LINE_HEIGHT = 1.3


@dataclass(frozen=True)
class GridRow:
    """One row of tiles with its label; `note` stands small under it, `is_photos` sets the row apart.

    None among the images leaves a place empty.
    """

    label: str
    images: Sequence[Image.Image | None]
    note: str = ""
    is_photos: bool = False


class _Measures:
    """Every length of a grid, in pixels, from the side of a tile."""

    def __init__(self, tile: int) -> None:
        self.tile = tile
        self.gap = max(3, tile // 32)
        self.step = tile + self.gap
        self.margin = max(10, tile // 10)
        self.label_width = max(120, min(300, round(tile * 1.15)))
        self.tiles_left = self.margin + self.label_width + self.gap
        self.label_size = max(12, min(22, round(tile / 10)))
        self.note_size = max(10, round(self.label_size * 0.8))
        self.title_size = round(self.label_size * 1.45)


def draw_grid(
    rows: Sequence[GridRow],
    *,
    tile_px: int = 192,
    title: str | None = None,
    columns: int | None = None,
    headings: Sequence[str] | None = None,
    group: int = 1,
    least_columns: int = 1,
) -> Image.Image:
    """Rows of square tiles with wrapped labels at their left, as an RGB image.

    `columns` is the most tiles side by side; a longer row goes on beneath itself. `headings` name the columns ("seed
    0", ...), each over `group` of them; there are at least `least_columns`.

    Tiles are cropped to the middle. Labels may hold any text: control characters become spaces, a character without a
    glyph becomes a square. Raises ValueError without rows or for a tile under 16 px.
    """
    if not rows:
        raise ValueError("a grid needs at least one row")
    if tile_px < 16:
        raise ValueError(f"tile_px must be at least 16, found {tile_px}")
    measures = _Measures(tile_px)
    widest = max(1, least_columns, *(len(row.images) for row in rows))
    across = min(widest, columns) if columns and columns > 0 else widest
    labels = [_label(row, measures) for row in rows]
    heights = [_row_height(row, label, across, measures) for row, label in zip(rows, labels, strict=True)]
    width = measures.tiles_left + across * measures.step - measures.gap + measures.margin
    title_font = load_font(measures.title_size, bold=True)
    title_lines = wrapped(title, title_font, width - 2 * measures.margin, 3)
    top = measures.margin + _text_height(title_lines, measures.title_size) + (measures.gap * 2 if title_lines else 0)
    heading_height = measures.note_size * 2 if headings else 0
    grid = Image.new("RGB", (width, top + heading_height + sum(heights) + measures.margin - measures.gap), "white")
    pen = ImageDraw.Draw(grid)
    write(pen, (measures.margin, measures.margin), title_lines, title_font, INK)
    _draw_headings(pen, headings, top, across, measures, group)
    y = top + heading_height
    for row, label, height in zip(rows, labels, heights, strict=True):
        _draw_row(grid, pen, row, label, (y, height), across, measures)
        y += height
    return grid


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Several grids as one image, each beneath the one before, on white. Raises ValueError without any."""
    if not parts:
        raise ValueError("nothing to stack")
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    y = 0
    for part in parts:
        whole.paste(part, (0, y))
        y += part.height
    return whole


@lru_cache(maxsize=16)
def load_font(size_px: int, *, bold: bool = False) -> Font:
    """DejaVu Sans from matplotlib's own files, so that every machine draws the same letters."""
    return ImageFont.truetype(str(_font_file(bold)), size_px)


def drawable(text: str) -> str:
    """The text on one line, with control and invisible characters gone and glyphs the font lacks as squares."""
    glyphs = _glyphs()
    letters = []
    for letter in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(letter)
        if letter.isspace() or kind in {"Cc", "Zl", "Zp"}:
            letters.append(" ")
        elif kind in {"Cf", "Cs", "Mn"} and (kind != "Mn" or ord(letter) not in glyphs or letter == "\ufe0f"):
            continue  # joiners, direction marks, variation selectors, half characters
        else:
            letters.append(letter if ord(letter) in glyphs else MISSING_GLYPH)
    return " ".join("".join(letters).split())


def wrap_text(text: str, width_px: float, lines: int, measure: Callable[[str], float]) -> list[str]:
    """Break text into at most so many lines no wider than `width_px`; a cut text ends in an ellipsis.

    Breaks at spaces, and inside a word that is wider than a line.
    """
    wrapped: list[str] = []
    must_break = True
    for piece, is_broken in _pieces(text, width_px, measure):
        if not must_break and measure(f"{wrapped[-1]} {piece}") <= width_px:
            wrapped[-1] += f" {piece}"
        else:
            wrapped.append(piece)
        must_break = is_broken
    if len(wrapped) <= lines:
        return wrapped
    last = wrapped[lines - 1]
    while last and measure(f"{last}…") > width_px:
        last = last[:-1]
    return [*wrapped[: lines - 1], f"{last.rstrip()}…"]


def _pieces(text: str, width_px: float, measure: Callable[[str], float]) -> Iterator[tuple[str, bool]]:
    """Words, too wide ones in parts; True where a part goes on in the next piece, which must begin a line."""
    for word in text.split():
        while measure(word) > width_px and len(word) > 1:
            fit = max(1, _fitting(word, width_px, measure))
            yield word[:fit], True
            word = word[fit:]
        if word:
            yield word, False


def _fitting(word: str, width_px: float, measure: Callable[[str], float]) -> int:
    """How many letters of a word fit, by halving."""
    low, high = 0, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure(word[:middle]) <= width_px else (low, middle - 1)
    return low


def _label(row: GridRow, measures: _Measures) -> tuple[list[str], list[str]]:
    """The row's label and note, wrapped to what fits beside a tile."""
    room = max(1, int(measures.tile / (measures.label_size * 1.3)) - (2 if row.note else 0))
    text = wrapped(row.label, load_font(measures.label_size, bold=row.is_photos), measures.label_width, max(3, room))
    return text, wrapped(row.note, load_font(measures.note_size), measures.label_width, 3)


def _row_height(row: GridRow, label: tuple[list[str], list[str]], across: int, measures: _Measures) -> int:
    text = _text_height(label[0], measures.label_size) + _text_height(label[1], measures.note_size)
    tile_rows = max(1, -(-len(row.images) // across))
    padding = measures.gap * 2 if row.is_photos else 0
    return max(text + measures.gap, tile_rows * measures.step) + padding


def _draw_headings(
    pen: ImageDraw.ImageDraw, headings: Sequence[str] | None, y: int, across: int, measures: _Measures, group: int
) -> None:
    font = load_font(measures.note_size)
    step = group * measures.step
    for number, heading in enumerate((headings or ())[: -(-across // group)]):
        lines = wrapped(heading, font, step - measures.gap, 1)
        middle = measures.tiles_left + number * step + (step - measures.gap) / 2
        pen.text((middle, y), lines[0] if lines else "", font=font, fill=FAINT_INK, anchor="ma")


def _draw_row(
    grid: Image.Image,
    pen: ImageDraw.ImageDraw,
    row: GridRow,
    label: tuple[list[str], list[str]],
    place: tuple[int, int],
    across: int,
    measures: _Measures,
) -> None:
    y, height = place
    if row.is_photos:
        pen.rectangle((0, y - measures.gap, grid.width, y + height - 2 * measures.gap - 1), fill=PHOTO_GROUND)
        pen.line((0, y + height - 2 * measures.gap, grid.width, y + height - 2 * measures.gap), fill=RULE)
    below = write(pen, (measures.margin, y), label[0], load_font(measures.label_size, bold=row.is_photos), INK)
    write(pen, (measures.margin, below + measures.gap // 2), label[1], load_font(measures.note_size), FAINT_INK)
    for number, image in enumerate(row.images):
        if image is not None:
            down, right = divmod(number, across)
            corner = measures.tiles_left + right * measures.step, y + down * measures.step
            grid.paste(square_tile(image, measures.tile), corner)


def square_tile(image: Image.Image, side: int) -> Image.Image:
    """The image cropped to its middle square; transparency on white."""
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def wrapped(text: str | None, font: Font, width: int, lines: int) -> list[str]:
    """Any text as at most so many lines of drawable letters; none for no text."""
    return wrap_text(drawable(text), width, lines, font.getlength) if text else []


def _text_height(lines: Sequence[str], size: int) -> int:
    return round(len(lines) * size * LINE_HEIGHT)


def write(pen: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], font: Font, ink: str) -> int:
    """Write lines under each other; returns where the next one would begin."""
    x, y = place
    for number, line in enumerate(lines):
        pen.text((x, y + round(number * font.size * LINE_HEIGHT)), line, font=font, fill=ink)
    return y + _text_height(lines, int(font.size))


def _font_file(bold: bool) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Code points the font can draw."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file(False))).get_charmap())
