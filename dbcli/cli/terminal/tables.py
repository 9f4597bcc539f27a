"""The one way in which listings are set out: whole words, numbers, columns left out before any word is broken."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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

    @property
    def total(self) -> int:
        """How wide a line can be."""
        return _total(self.widths)

    @property
    def is_whole(self) -> bool:
        """No column left out, none cut."""
        return not self.left_out and not self.is_cut


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> Layout:
    """Chooses columns and their widths, so that no line is wider than `width`.

    Of the columns that may be left out, those without a single value are not shown, and not counted as left out.
    """
    spans: dict[int, _Span] = {}
    for place, column in enumerate(columns):
        texts = [_text(row[place]) for row in rows]
        if not column.drop or any(texts):
            spans[place] = _span(column, texts)
    left_out: list[str] = []
    while _total([span.least for span in spans.values()]) > width:
        droppable = [place for place in spans if columns[place].drop]
        if not droppable:
            break
        first = max(droppable, key=lambda place: (columns[place].drop, place))
        del spans[first]
        left_out.append(columns[first].title)
    widths = _shared(list(spans.values()), width)
    is_cut = any(given < span.least for given, span in zip(widths, spans.values(), strict=True))
    return Layout(tuple(spans), tuple(widths), tuple(left_out), is_cut)


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


def plain_lines(rows: Sequence[Sequence[Cell]], columns: Sequence[Column], layout: Layout) -> list[str] | None:
    """What Rich would print of rows without colours whose every cell fits on one line; None where one does not.

    A thousand rows take Rich half a second.
    """
    if any(not isinstance(row[place], str) for row in rows for place in layout.kept):
        return None
    lines = []
    for row in rows:
        cells = []
        for place, width in zip(layout.kept, layout.widths, strict=True):
            text = str(row[place])
            room = width - cell_len(text)
            # Rich breaks a cell of several words where it has none to spare, and knows tabs and controls.
            if room < 0 or not text.isprintable():
                return None
            cells.append(" " * room + text if columns[place].right else text + " " * room)
        lines.append((" " * GAP).join(cells).rstrip())
    return lines


def unpadded(lines: Iterable[Sequence[Segment]]) -> Iterator[Text]:
    """Rendered lines without the blanks that fill up their ends."""
    for line in lines:
        text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        text.rstrip()
        yield text


def _text(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell


class _Span(NamedTuple):
    """How wide a column must be at least, and how wide it is by nature."""

    least: int
    natural: int


def _span(column: Column, texts: Sequence[str]) -> _Span:
    natural = max(1, cell_len(column.title), *(cell_len(line) for text in texts for line in text.splitlines()))
    if column.least is None and not column.wraps:
        return _Span(natural, natural)
    least = max(cell_len(column.title), column.least or 1)
    if column.wraps:
        longest = max((cell_len(word) for text in texts for word in text.split()), default=1)
        least = max(least, min(LONGEST_WORD, longest))
    return _Span(min(natural, least), natural)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shared(spans: Sequence[_Span], width: int) -> list[int]:
    """Widths between least and natural that fill what there is; below least only where nothing else is left."""
    widths = [span.least for span in spans]
    spare = width - _total(widths)
    while spare > 0:
        place = max(range(len(widths)), key=lambda one: spans[one].natural - widths[one])
        if spans[place].natural == widths[place]:
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


def number(value: float | None, form: str = ".3f", missing: str = "") -> str:
    """A value in a format of its own, `missing` where it was not measured."""
    return missing if value is None else f"{value:{form}}"


def with_interval(found: Mapping[str, float | None], form: str = ".3f") -> tuple[str, str]:
    """A score and its interval, "0.830" and "0.811 to 0.849"; the interval is empty where none is known."""
    low, high = found.get("low"), found.get("high")
    interval = "" if low is None or high is None else f"{low:{form}} to {high:{form}}"
    return number(found.get("value"), form), interval
