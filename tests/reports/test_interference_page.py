"""The page of a measurement of interference, from numbers made by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from dbcli.reports.interference_page import interference_page, matrix_chart


def made(dog: str = "dog") -> dict[str, Any]:
    """Two subjects, the first of which bleeds into the second."""
    share = {"value": 0.25, "low": 0.1, "high": 0.4}
    drift = {
        "pictures": 8,
        "same_seed": 0.91,
        "other_seeds": 0.4,
        "pres": {"before": 0.3, "after": 0.55},
        "div": {"before": 0.6, "after": None},
    }
    return {
        "drawn_with": "0003-dog-cat",
        "subjects": [dog, "cat"],
        "without_photos": [],
        "matrix": {
            "columns": [dog, "cat"],
            "rows": [
                {"what": "asked for", "name": dog, "values": [0.4, 0.7]},
                {"what": "photos of", "name": "cat", "values": [0.1, None]},
            ],
        },
        "nearest": {
            "overall": {"value": 0.625, "low": None, "high": None},
            "chance": 0.5,
            "subjects": {
                dog: {"right": share, "nearest": {dog: 1, "cat": 3}, "photos_right": 1.0, "verdict": "bleeds"},
                "cat": {"right": share, "nearest": {dog: 0, "cat": 4}, "photos_right": None, "verdict": "apart"},
            },
            "bleeding": [dog],
            "rule": "a rule",
        },
        "drift": {"dog": drift},
        "draw": {"sampler": "ddim", "steps": 50, "guidance": 7.5, "count": 4},
        "seed": 0,
        "judge": {"model": "tiny-dino"},
    }


def test_the_page_warns_and_says_every_number() -> None:
    page = interference_page(made())
    assert "dog bleeds into cat (3 of 4 images)" in page
    for said in ("0.250 (0.100 to 0.400)", "0.910", "0.550", "chance 0.500", "a rule"):
        assert said in page
    assert "asked for dog: dog 0.400, cat 0.700" in page
    assert page.count("data:image/png") == 2


def test_one_subject_has_no_matrix() -> None:
    report = made() | {"nearest": None, "matrix": {"columns": ["dog"], "rows": []}}
    page = interference_page(report)
    assert "data:image" not in page
    assert "how the class changed" in page


def test_what_a_person_typed_is_never_markup() -> None:
    assert "<script>alert" not in interference_page(made("<script>alert(1)</script>"))


@pytest.mark.parametrize("coat", ["light", "dark"])
def test_the_chart_is_a_picture(coat: Any) -> None:
    with Image.open(io.BytesIO(matrix_chart(made(), coat=coat))) as chart:
        assert chart.format == "PNG"
