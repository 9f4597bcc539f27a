"""The page and the grid of runs side by side."""

from __future__ import annotations

from PIL import Image, ImageColor

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
    assert [row[2] for row in table.rows] == ["+0.050 (+0.010 to +0.090) *", "-0.050", "–"]


def test_a_difference_says_on_how_many_pairs_it_rests() -> None:
    few = {"dino": {**FOUND["dino"], "pairs": 3}, "pres": {**FOUND["dino"], "pairs": 1}}
    table = difference_table([("b", few), ("c", {})], "a")
    assert table.headers[1] == "pairs" and [row[1] for row in table.rows] == ["3", "0"]


def test_the_page_holds_every_run_and_carries_nothing_that_runs() -> None:
    runs = [("0001-dog", made_scores()), ("0002-<b>dog", made_scores(copying=True))]
    page = comparison_page("two", runs, [("0002-dog", FOUND)], {"train.steps": ["1", "2"]}, {"dog": [PHOTO]}, prompts())
    assert "<script" not in page
    assert "0002-&lt;b&gt;dog" in page
    assert "train.steps" in page
    assert "copies the photos" in page
    assert page.count("<img ") == 1 + 4


def generated(colours: dict[str, list[str]], label: str = "in space") -> ComparedPrompt:
    rows = [(name, [Image.new("RGB", (64, 64), one) for one in own], None) for name, own in colours.items()]
    return ComparedPrompt(label, rows)


def places(grid: Image.Image, colour: str) -> tuple[int, int, int, int]:
    """The box around everything of one colour."""
    wanted = ImageColor.getrgb(colour)
    same = [
        (x, y) for y in range(0, grid.height, 4) for x in range(0, grid.width, 4) if grid.getpixel((x, y)) == wanted
    ]
    return min(x for x, _ in same), min(y for _, y in same), max(x for x, _ in same), max(y for _, y in same)


def test_a_grid_has_a_column_a_run_and_a_row_a_prompt() -> None:
    first = generated({"0001-dog": ["red", "red"], "0002-dog": ["blue", "blue"]})
    one = comparison_grid({"dog": [PHOTO]}, [first], title="two", seeds=[5, 6])
    two = comparison_grid({"dog": [PHOTO]}, [first, first], title="two", seeds=[5, 6])
    assert 128 <= two.height - one.height < 2 * 128
    assert two.width == one.width
    plain = comparison_grid({}, [first], title="two", seeds=[5, 6])
    red, blue = places(plain, "red"), places(plain, "blue")
    assert red[2] < blue[0]
    assert (red[1], red[3]) == (blue[1], blue[3])


def test_many_images_have_a_row_a_seed_and_still_a_column_a_run() -> None:
    many = generated({"0001-dog": ["red"] * 8, "0002-dog": ["blue"] * 8})
    grid = comparison_grid({}, [many], title="two", seeds=range(8))
    red, blue = places(grid, "red"), places(grid, "blue")
    assert red[2] < blue[0]
    assert red[2] - red[0] < 128 < red[3] - red[1]


def test_a_run_without_an_image_keeps_its_column() -> None:
    lacking = generated({"0001-dog": ["red"], "0002-dog": [], "0003-dog": ["blue"]})
    whole = generated({"0001-dog": ["red"], "0002-dog": ["lime"], "0003-dog": ["blue"]})
    found = [comparison_grid({}, [one], title="t", seeds=[0]) for one in (lacking, whole)]
    assert places(found[0], "blue") == places(found[1], "blue")
