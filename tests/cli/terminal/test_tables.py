"""How listings are set out: columns go before words are broken."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dbcli.cli.terminal.tables import Column, lay_out, plain_lines, set_out

# Natural widths 8, 12, 6, 5 with two spaces between: 37 in all.
COLUMNS = [Column("run"), Column("differs", wraps=True, least=7), Column("score", drop=1), Column("made", drop=2)]
ROWS = [["0001-dog", "steps 40 now", "0.8123", "today"], ["0002-dog", "", "", "now"]]


def printed(columns: list[Column], rows: list[list[str]], width: int) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(set_out(columns, rows, lay_out(columns, rows, width)))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_where_there_is_room_every_column_has_its_natural_width() -> None:
    found = lay_out(COLUMNS, ROWS, 37)
    assert (found.kept, found.widths, found.left_out) == ((0, 1, 2, 3), (8, 12, 6, 5), ())


def test_text_that_wraps_gives_way_before_a_column_does() -> None:
    found = lay_out(COLUMNS, ROWS, 32)
    assert (found.widths, found.left_out) == ((8, 7, 6, 5), ())
    assert printed(COLUMNS, ROWS, 32)[1:3] == ["0001-dog  steps    0.8123  today", "          40 now"]


@pytest.mark.parametrize(("width", "left_out"), [(31, ("made",)), (24, ("made", "score")), (17, ("made", "score"))])
def test_columns_are_left_out_from_the_highest_number_on(width: int, left_out: tuple[str, ...]) -> None:
    found = lay_out(COLUMNS, ROWS, width)
    assert found.left_out == left_out
    assert not found.is_cut


def test_columns_that_stay_are_cut_with_an_ellipsis_and_never_wider_than_the_terminal() -> None:
    lines = printed([Column("run"), Column("subject")], [["0001-a-very-long-name", "a-long-subject"]], 20)
    assert all(len(line) <= 20 for line in lines)
    assert "…" in lines[1]


def test_a_name_is_cut_before_a_column_is_left_out_if_it_may_be() -> None:
    found = lay_out([Column("run", least=6), Column("score", drop=1)], [["0001-a-long-name", "0.8"]], 15)
    assert (found.widths, found.left_out) == ((8, 5), ())


def test_a_column_without_a_value_is_not_shown_and_not_missed() -> None:
    found = lay_out([Column("run"), Column("score", drop=1)], [["0001-dog", ""]], 80)
    assert (found.kept, found.left_out) == ((0,), ())


def test_wide_characters_count_as_two() -> None:
    assert lay_out([Column("name")], [["子犬"]], 80).widths == (4,)


RIGHT = [Column("run"), Column("differs", wraps=True, least=7), Column("score", right=True), Column("made", drop=2)]


@pytest.mark.parametrize("width", [17, 24, 31, 32, 37, 90])
@pytest.mark.parametrize(
    "rows", [ROWS, [["0001-dog", "北京 猫", "1", ""], ["0002", "é ü", "10.25", "now"]], [["a", "", "", ""]]]
)
@pytest.mark.parametrize("columns", [COLUMNS, RIGHT])
def test_plain_lines_are_what_rich_prints_or_are_left_to_it(
    columns: list[Column], rows: list[list[str]], width: int
) -> None:
    layout = lay_out(columns, rows, width)
    plain = plain_lines(rows, columns, layout)
    if layout.total <= width and plain is not None:
        assert printed(columns, rows, width)[1:] == plain
    else:
        assert width < 37


@pytest.mark.parametrize("cell", ["two\nlines", "a\ttab"])
def test_a_cell_that_is_more_than_one_line_of_text_is_left_to_rich(cell: str) -> None:
    rows = [["0001-dog", cell, "1", "now"]]
    assert plain_lines(rows, COLUMNS, lay_out(COLUMNS, rows, 90)) is None
