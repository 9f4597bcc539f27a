"""The page and the grid of runs side by side."""

from __future__ import annotations

from PIL import Image

from dbcli.reports.comparison import (
    ComparedPrompt,
    comparison_grid,
    comparison_page,
    difference_table,
    score_table,
)
from tests.reports.score_makers import made_scores

PHOTO = Image.new("RGB", (64, 64), "red")
FOUND = {"dino": {"value": 0.05, "low": 0.01, "high": 0.09, "pairs": 3, "clear": True}}


def prompts() -> list[ComparedPrompt]:
    rows = [(name, [PHOTO, PHOTO], made_scores()["subjects"][0]["prompts"][0]) for name in ("0001-dog", "0002-dog")]
    return [ComparedPrompt("in space", rows)]


def test_photos_own_values_stand_first_where_all_runs_share_them() -> None:
    one, other = made_scores(), made_scores()
    assert score_table([("a", one), ("b", other)]).rows[0][0] == "photos (real-real)"
    other["real"] = {"dino": 0.1, "clip_i": 0.2}
    assert score_table([("a", one), ("b", other)]).rows[0][0] == "a"


def test_a_difference_shows_sign_interval_and_whether_it_is_clear() -> None:
    unsure = {"dino": {"value": -0.05, "low": None, "high": None, "pairs": 1, "clear": False}}
    table = difference_table([("b", FOUND), ("c", unsure), ("d", {})], "a")
    assert [row[1] for row in table.rows] == ["+0.050 (+0.010 to +0.090) *", "-0.050", "–"]


def test_the_page_holds_every_run_and_carries_nothing_that_runs() -> None:
    runs = [("0001-dog", made_scores()), ("0002-<b>dog", made_scores(copying=True))]
    page = comparison_page("two", runs, [("0002-dog", FOUND)], {"train.steps": ["1", "2"]}, {"dog": [PHOTO]}, prompts())
    assert "<script" not in page
    assert "0002-&lt;b&gt;dog" in page
    assert "train.steps" in page
    assert "copies the photos" in page
    assert page.count("<img ") == 1 + 4


def test_the_grid_has_a_row_for_each_run_under_each_prompt() -> None:
    one = comparison_grid({"dog": [PHOTO]}, prompts()[:1], title="two", seeds=[5, 6])
    two = comparison_grid({"dog": [PHOTO]}, [*prompts(), *prompts()], title="two", seeds=[5, 6])
    assert two.height - one.height >= 2 * 128
    assert two.width == one.width
