"""The one way in which listings are set out: whole words, columns that are left out before any word is broken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# Between two columns, and the least that is left of a column whose cells are cut with an ellipsis.
GAP, LEAST_CUT = 2, 6
# A word longer than this, which only a path or a hash is, may be broken.
LONGEST_WORD = 40


@dataclass(frozen=True)
class Column:
    """One column of a listing.

    `drop` is 0 where it stays at any width; of the others the highest is left out first. A column that `wraps` goes on
    beneath itself between words, down to `least` characters or its longest word; one that does not wrap but has a
    `least` is cut to that with an ellipsis. Both happen before any column is left out.
    """

    title: str
    drop: int = 0
    least: int | None = None
    wraps: bool = False
    right: bool = False


Cell = str | Text


@dataclass(frozen=True)
class Layout:
    """What of a listing is shown at a width: the places of the columns, how wide each is, and those left out."""

    kept: tuple[int, ...]
    widths: tuple[int, ...]
    left_out: tuple[str, ...]
    is_cut: bool


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> Layout:
    """Chooses columns and their widths, so that no line is wider than `width`.

    Columns without a single value are never shown, and not counted as left out.
    """
    places = [
        place for place, column in enumerate(columns) if not column.drop or any(_text(row[place]) for row in rows)
    ]
    natural = {place: _natural(columns[place], [row[place] for row in rows]) for place in places}
    least = {place: _least(columns[place], [row[place] for row in rows], natural[place]) for place in places}
    left_out: list[str] = []
    while _total([least[place] for place in places]) > width:
        droppable = [place for place in places if columns[place].drop]
        if not droppable:
            break
        first = max(droppable, key=lambda place: (columns[place].drop, place))
        places.remove(first)
        left_out.append(columns[first].title)
    widths = _shared([least[place] for place in places], [natural[place] for place in places], width)
    is_cut = any(given < least[place] for given, place in zip(widths, places, strict=True))
    return Layout(tuple(places), tuple(widths), tuple(left_out), is_cut)


def set_out(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], layout: Layout) -> Table:
    """The listing as Rich prints it."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    table.show_header = any(columns[place].title for place in layout.kept)
    for place, width in zip(layout.kept, layout.widths, strict=True):
        column = columns[place]
        table.add_column(
            column.title,
            width=width,
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
            justify="right" if column.right else "left",
        )
    for row in rows:
        table.add_row(*(row[place] for place in layout.kept))
    return table


def unpadded(lines: Iterable[Sequence[Segment]]) -> list[Segment]:
    """Rendered lines without the blanks that fill up their ends."""
    found: list[Segment] = []
    for line in lines:
        kept = list(line)
        while kept and not kept[-1].text.strip():
            kept.pop()
        if kept:
            last = kept.pop()
            kept.append(Segment(last.text.rstrip(), last.style))
        found += [*kept, Segment.line()]
    return found


def fits(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> bool:
    """Whether a listing can be shown whole: no column left out, none cut."""
    layout = lay_out(columns, rows, width)
    return not layout.left_out and not layout.is_cut


def _text(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell


def _natural(column: Column, cells: Sequence[Cell]) -> int:
    lines = [line for cell in cells for line in _text(cell).splitlines()]
    return max(1, cell_len(column.title), *(cell_len(line) for line in lines)) if lines else max(1, len(column.title))


def _least(column: Column, cells: Sequence[Cell], natural: int) -> int:
    if column.least is None and not column.wraps:
        return natural
    floor = max(cell_len(column.title), column.least or 1)
    if column.wraps:
        words = [cell_len(word) for cell in cells for word in _text(cell).split()]
        floor = max(floor, min(LONGEST_WORD, max(words, default=1)))
    return min(natural, floor)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shared(least: Sequence[int], natural: Sequence[int], width: int) -> list[int]:
    """Widths between least and natural that fill what there is; below least only where nothing else is left."""
    widths = list(least)
    spare = width - _total(widths)
    while spare > 0:
        place = max(range(len(widths)), key=lambda one: natural[one] - widths[one])
        if natural[place] == widths[place]:
            break
        widths[place] += 1
        spare -= 1
    while spare < 0:
        place = max(range(len(widths)), key=lambda one: widths[one])
        if widths[place] <= LEAST_CUT:
            break
        widths[place] -= 1
        spare += 1
    return widths
