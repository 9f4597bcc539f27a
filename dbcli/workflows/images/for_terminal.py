"""Drawn pictures made ready for a terminal, without the command line opening a picture itself."""

from collections.abc import Sequence
from pathlib import Path

Colour = tuple[int, int, int]
_STRIP_PX = 256


def as_cells(files: Sequence[Path], columns: int) -> list[list[tuple[Colour, Colour]]]:
    """Pictures side by side as rows of cells, each with the colours of its upper and its lower half."""
    from dbcli.reports.terminal_images import cells, strip

    return cells(strip(files, _STRIP_PX), columns)


def as_png(files: Sequence[Path]) -> bytes:
    """Pictures side by side as one PNG."""
    from dbcli.reports.terminal_images import png_of, strip

    return png_of(strip(files, _STRIP_PX))
