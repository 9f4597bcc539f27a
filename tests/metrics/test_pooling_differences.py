"""Differences of two evaluations, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dbcli.metrics.pooling import score_differences
from dbcli.metrics.statistics import Cell, bootstrap_interval


def evaluation(values: dict[str, float], *, name: str = "dog", pres: float | None = None) -> dict[str, Any]:
    prompts = [
        {"template": template, "scoring_text": template, "images": ["a", "b"], "scores": {"dino": value, "div": None}}
        for template, value in values.items()
    ]
    scores = {"pres": None if pres is None else {"value": pres}}
    return {"subjects": [{"name": name, "prompts": prompts, "scores": scores}]}


def test_a_difference_is_the_mean_over_prompts_that_both_drew_with_the_interval_of_the_pairs() -> None:
    one = evaluation({"in snow": 0.7, "in space": 0.6, "on a beach": 0.9}, pres=0.5)
    other = evaluation({"in space": 0.5, "in snow": 0.4, "on Mars": 0.1}, pres=0.4)
    found = score_differences(one, other)
    assert found["dino"]["value"] == pytest.approx((0.3 + 0.1) / 2)
    assert found["dino"]["pairs"] == 2
    cells = [Cell("dog", "in snow\n1", 0.3, 2.0), Cell("dog", "in space\n1", 0.1, 2.0)]
    expected = bootstrap_interval(cells)
    assert (found["dino"]["low"], found["dino"]["high"]) == pytest.approx((expected.low, expected.high))
    assert found["pres"]["value"] == pytest.approx(0.1)
    assert found["pres"]["low"] is None
    assert not found["pres"]["clear"]
    assert "div" not in found


def test_what_both_share_cancels_and_a_steady_difference_is_clear() -> None:
    hard = {f"prompt {number}": 0.1 * number for number in range(8)}
    better = {prompt: value + 0.05 + 0.001 * (number % 2) for number, (prompt, value) in enumerate(hard.items())}
    assert score_differences(evaluation(better), evaluation(hard))["dino"]["clear"]
    assert not score_differences(evaluation(hard), evaluation(hard))["dino"]["clear"]


def test_subjects_of_other_names_are_paired_by_place() -> None:
    found = score_differences(evaluation({"in snow": 0.7}, name="rex"), evaluation({"in snow": 0.5}, name="dog"))
    assert found["dino"]["value"] == pytest.approx(0.2)


def test_nothing_in_common_gives_no_difference() -> None:
    assert score_differences(evaluation({"in snow": 0.7}), evaluation({"on Mars": 0.5})) == {}


def test_an_interval_of_two_pairs_holds_no_difference_that_two_shares_cannot_have() -> None:
    subject = {"name": "dog", "scores": {}}

    def shares(first: float, second: float) -> dict[str, Any]:
        values = zip(("in snow", "in space"), (first, second), strict=True)
        prompts = [{"template": one, "images": ["a"], "scores": {"identified": value}} for one, value in values]
        return {"subjects": [subject | {"prompts": prompts}]}

    # The two differences are 0 and 1: Student's t with one degree of freedom alone gives 0.5 ± 6.
    found = score_differences(shares(1.0, 1.0), shares(1.0, 0.0))["identified"]
    assert (found["value"], found["low"], found["high"]) == (0.5, -1.0, 1.0)
    assert not found["clear"]
