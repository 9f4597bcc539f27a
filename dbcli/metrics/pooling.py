"""Scores of several evaluations as one: over the subjects of a benchmark, over seeds, over suites.

The judges are not asked again: everything is in the scores.json of each evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dbcli.metrics.protocol import DEFINITIONS
from dbcli.metrics.statistics import Cell, bootstrap_interval

Place = tuple[str, str]


def pool_scores(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several scores.json as one, in the same form: protocol, overall with intervals, real, copying, subjects.

    Values of one subject under one prompt, from several evaluations (seeds), are averaged by their pictures first,
    so that a seed more is never taken for a subject more. Raises ValueError without any evaluation.
    """
    if not evaluations:
        raise ValueError("nothing to pool")
    protocol = evaluations[0]["protocol"]
    values: dict[str, dict[Place, list[tuple[float, float]]]] = {metric: {} for metric in DEFINITIONS}
    records: dict[str, list[Mapping[str, Any]]] = {}
    for subject in (subject for one in evaluations for subject in one["subjects"]):
        records.setdefault(subject["name"], []).append(subject)
        for metric, prompt, value, weight in score_values(subject):
            values[metric].setdefault((subject["name"], prompt), []).append((value, weight))
    cells = {metric: [_mean_cell(place, found) for place, found in places.items()] for metric, places in values.items()}
    seed, resamples = protocol["intervals"]["seed"], protocol["intervals"]["resamples"]

    def interval(metric: str, name: str | None = None) -> dict[str, float | None] | None:
        chosen = [cell for cell in cells[metric] if name is None or cell.subject == name]
        return _interval(metric, chosen, seed, resamples) if chosen else None

    subjects = [
        {
            "name": name,
            "class_noun": found[0]["class_noun"],
            "photos": found[0]["photos"],
            "images": sum(one["images"] for one in found),
            "scores": {metric: interval(metric, name) for metric in DEFINITIONS},
            "real": found[0]["real"],
            "copying": any(one["copying"] for one in found),
        }
        for name, found in records.items()
    ]
    return {
        "protocol": protocol,
        "overall": {metric: interval(metric) for metric in DEFINITIONS},
        "real": {metric: _mean([one["real"][metric] for one in subjects]) for metric in ("dino", "clip_i")},
        "copying": [one["name"] for one in subjects if one["copying"]],
        "subjects": subjects,
    }


def score_values(subject: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Every score of a subject: metric, prompt, value, and the pictures it is a mean of (1 for PRES and DIV).

    A template that comes twice is two prompts.
    """
    found: list[tuple[str, str, float, float]] = []
    seen: dict[str, int] = {}
    for prompt in subject["prompts"]:
        text = prompt["template"] or prompt["scoring_text"]
        key = f"{text}\n{seen.get(text, 0)}"
        seen[text] = seen.get(text, 0) + 1
        for metric, value in prompt["scores"].items():
            if metric in DEFINITIONS and value is not None:
                found.append((metric, key, value, 1.0 if metric == "div" else float(len(prompt["images"]))))
    pres = (subject["scores"].get("pres") or {}).get("value")
    return found + ([("pres", "class", pres, 1.0)] if pres is not None else [])


def _mean_cell(place: Place, found: Sequence[tuple[float, float]]) -> Cell:
    weight = sum(one for _, one in found)
    return Cell(*place, sum(value * one for value, one in found) / weight, weight)


def _interval(metric: str, cells: Sequence[Cell], seed: int, resamples: int) -> dict[str, float | None]:
    found = bootstrap_interval(cells, seed=seed, resamples=resamples)
    least, most = (0.0, 2.0) if metric == "div" else (-1.0, 1.0)
    low = None if found.low is None else max(found.low, least)
    high = None if found.high is None else min(found.high, most)
    return {"value": found.value, "low": low, "high": high}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
