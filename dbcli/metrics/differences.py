"""Two evaluations against each other, prompt by prompt. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbcli.metrics.pooling import score_values
from dbcli.metrics.statistics import Cell, bootstrap_interval


def score_differences(scores: Mapping[str, Any], against: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each score of one scores.json less that of another, with its 95 % interval, for what both were asked.

    Subjects are paired by name, or by their place where no name is common; prompts by their template. A pair's noise
    that both share (a hard prompt) cancels, so the interval is narrower than those of the two scores. `clear` says that
    it does not hold zero. Scores without a pair are left out.
    """
    cells: dict[str, list[Cell]] = {}
    for one, other in _pairs(scores, against):
        known = {(metric, prompt): found for metric, prompt, *found in score_values(other)}
        for metric, prompt, value, weight in score_values(one):
            if (metric, prompt) in known:
                before, other_weight = known[metric, prompt]
                cell = Cell(one["name"], prompt, value - before, min(weight, other_weight))
                cells.setdefault(metric, []).append(cell)
    found = {}
    for metric, differences in cells.items():
        interval = bootstrap_interval(differences)
        low, high = interval.low, interval.high
        clear = low is not None and high is not None and (low > 0 or high < 0)
        found[metric] = {"value": interval.value, "low": low, "high": high, "pairs": len(differences), "clear": clear}
    return found


def _pairs(scores: Mapping[str, Any], against: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    others = {subject["name"]: subject for subject in against["subjects"]}
    named = [(one, others[one["name"]]) for one in scores["subjects"] if one["name"] in others]
    if named or len(scores["subjects"]) != len(against["subjects"]):
        return named
    return list(zip(scores["subjects"], against["subjects"], strict=True))
