"""Tables of scores, as text and as Markdown."""

from __future__ import annotations

from dbcli.reports.tables import (
    NOTHING,
    Table,
    format_interval,
    format_score,
    markdown,
    prompt_table,
    subject_table,
)
from tests.reports.score_makers import interval, made_scores


def test_numbers_have_three_decimals_or_a_dash() -> None:
    assert format_score(0.71249) == "0.712"
    assert format_score(None) == NOTHING
    assert format_interval(interval(0.7, 0.65, 0.75)) == "0.700 (0.650 to 0.750)"
    assert format_interval(interval(0.7)) == "0.700"
    assert format_interval(None) == NOTHING


def test_real_real_stands_above_each_subject() -> None:
    table = subject_table(made_scores())
    assert table.headers == ("", "DINO ↑", "CLIP-I ↑", "CLIP-T ↑", "DIV ↑")
    assert [row[0] for row in table.rows] == [
        "dog: photos (real-real)", "dog: generated", "vase: photos (real-real)", "vase: generated",
        "all photos (real-real)", "all generated",
    ]  # fmt: skip
    assert table.rows[0][1:] == ("0.774", "0.885", NOTHING, NOTHING)
    assert table.rows[1][1] == "0.712 (0.650 to 0.770)"


def test_copying_is_said_in_the_row() -> None:
    assert subject_table(made_scores(copying=True)).rows[1][0] == "dog: generated (copies the photos)"
    assert "copies" in prompt_table(made_scores(copying=True)["subjects"][0]).rows[0][0]


def test_columns_without_any_value_are_left_out() -> None:
    assert prompt_table(made_scores()["subjects"][0]).headers == ("prompt", "DINO ↑", "CLIP-I ↑", "CLIP-T ↑")


def test_markdown_by_hand() -> None:
    table = Table(("", "DINO ↑"), (("a | b", "0.7"),), "note")
    assert markdown(table) == "|  | DINO ↑ |\n| :-- | --: |\n| a \\| b | 0.7 |\n\nnote\n"


def test_hostile_cells_stay_in_their_cell() -> None:
    text = markdown(Table(("prompt",), (("one\n| two | <b>*x*</b> `y` [z](javascript:1)",),)))
    assert len(text.splitlines()) == 3
    assert "\\<b\\>\\*x\\*" in text
    assert "\\[z\\]" in text
