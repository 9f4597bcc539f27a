"""Interference against numbers worked out by hand, on features in the plane."""

from __future__ import annotations

import pytest
import torch

from dbcli.metrics.separation import (
    class_drift,
    likeness_row,
    nearest_photos,
    nearest_report,
    nearest_subjects,
    photo_row,
    verdict,
)

ACROSS, UP, SLANTED, STEEP = [1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]
PHOTOS = {"dog": torch.tensor([ACROSS, SLANTED]), "cat": torch.tensor([UP])}


def test_a_row_holds_the_mean_over_all_pairs() -> None:
    # steep with across .6, with slanted .48 + .48 = .96; with up .8
    assert likeness_row(torch.tensor([STEEP]), PHOTOS) == pytest.approx({"dog": 0.78, "cat": 0.8})


def test_photos_are_not_compared_with_themselves() -> None:
    assert photo_row("dog", PHOTOS) == pytest.approx({"dog": 0.8, "cat": 0.3})
    assert photo_row("cat", PHOTOS)["cat"] is None


def test_the_nearest_subject_is_the_one_likest_on_the_mean() -> None:
    assert nearest_subjects(torch.tensor([ACROSS, SLANTED, STEEP, UP]), PHOTOS) == ["dog", "dog", "cat", "cat"]


def test_a_photo_counts_without_itself() -> None:
    # across without itself: slanted .8 against up 0; slanted without itself: across .8 against up .6
    assert nearest_photos("dog", PHOTOS) == 1.0
    near = {"dog": torch.tensor([ACROSS, UP]), "cat": torch.tensor([SLANTED])}
    # across: up 0 against slanted .8; up: across 0 against slanted .6
    assert nearest_photos("dog", near) == 0.0
    assert nearest_photos("cat", PHOTOS) is None


def test_the_report_counts_where_pictures_went() -> None:
    asked = {
        "dog": {"a": torch.tensor([ACROSS, UP]), "b": torch.tensor([SLANTED, ACROSS])},
        "cat": {"a": torch.tensor([UP, STEEP]), "b": torch.tensor([UP, UP])},
    }
    found = nearest_report(asked, PHOTOS)
    assert found["subjects"]["dog"]["nearest"] == {"dog": 3, "cat": 1}
    assert found["subjects"]["dog"]["right"]["value"] == pytest.approx(0.75)
    assert found["subjects"]["cat"]["right"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["overall"]["value"] == pytest.approx(0.875)
    assert 0 <= found["overall"]["low"] < 0.875 < found["overall"]["high"] <= 1
    assert (found["bleeding"], found["chance"]) == (["dog"], 0.5)
    assert found["subjects"]["cat"]["verdict"] == "apart"


@pytest.mark.parametrize(
    ("share", "photos_right", "said"),
    [(0.9, 1.0, "apart"), (0.89, 1.0, "bleeds"), (0.1, 0.8, "unknown"), (0.95, 0.8, "unknown"), (0.5, None, "bleeds")],
)
def test_the_rule(share: float, photos_right: float | None, said: str) -> None:
    assert verdict(share, photos_right) == said


def test_drift_compares_the_pictures_of_one_seed() -> None:
    before, after = torch.tensor([ACROSS, UP]), torch.tensor([SLANTED, UP])
    found = class_drift(before, after, [torch.tensor([ACROSS]), torch.tensor([UP])])
    # across with slanted .8, up with up 1; across with up 0; slanted with up .6
    assert found["same_seed"] == pytest.approx(0.9)
    assert found["other_seeds"] == pytest.approx(0.0)
    assert found["div"] == pytest.approx({"before": 1.0, "after": 0.4})
    # with across: (.8 + 0) / 2, with up: (.6 + 1) / 2
    assert found["pres"] == pytest.approx({"before": 0.5, "after": 0.6})


def test_a_class_without_photos_or_with_one_picture_has_no_score() -> None:
    found = class_drift(torch.tensor([UP]), torch.tensor([UP]), [torch.zeros(0, 2)])
    assert (found["pres"]["before"], found["div"]["after"], found["other_seeds"]) == (None, None, None)
    assert found["same_seed"] == 1.0
