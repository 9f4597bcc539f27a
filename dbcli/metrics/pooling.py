"""Scores of several evaluations as one, over subjects, seeds or suites, and of one evaluation against another.

The judges are not asked again: everything is in the scores.json of each evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dbcli.metrics.scores import ALL_DEFINITIONS, DEFINITIONS, mean_known, range_of
from dbcli.metrics.statistics import Cell, bounded_interval


def score_intervals(cells: Sequence[tuple[str, Cell]]) -> dict[str, dict[str, float | None] | None]:
    """Mean and interval of every score, from cells each with the name of its score; None without a cell.

    Scores of faces are left out where there is no cell: most subjects have none.
    """
    found: dict[str, dict[str, float | None] | None] = {}
    for metric in ALL_DEFINITIONS:
        chosen = [cell for name, cell in cells if name == metric]
        if not chosen and metric not in DEFINITIONS:
            continue
        # Few subjects give wide intervals; no score lies outside what its formula allows.
        found[metric] = bounded_interval(chosen, *range_of(metric)) if chosen else None
    return found


def pool_scores(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several scores.json as one, in the same form: protocol, overall with intervals, real, copying, subjects.

    Values of one subject under one prompt, from several evaluations (seeds), are averaged by their images first,
    so that a seed more is never taken for a subject more. Raises ValueError without any evaluation.
    """
    if not evaluations:
        raise ValueError("nothing to pool")
    records: dict[str, list[Mapping[str, Any]]] = {}
    for subject in (subject for one in evaluations for subject in one["subjects"]):
        records.setdefault(subject["name"], []).append(subject)
    cells = _pooled_cells(evaluations)
    subjects = [
        {
            "name": name,
            "class_noun": same[0]["class_noun"],
            "photos": same[0]["photos"],
            "images": sum(one["images"] for one in same),
            "scores": score_intervals([(metric, cell) for metric, cell in cells if cell.subject == name]),
            "real": mean_real(same),
            "copying": any(one["copying"] for one in same),
        }
        for name, same in records.items()
    ]
    return {
        "protocol": evaluations[0]["protocol"],
        "overall": score_intervals(cells),
        "real": mean_real(subjects),
        "copying": [one["name"] for one in subjects if one["copying"]],
        "subjects": subjects,
    }


def _pooled_cells(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, Cell]]:
    """Every score of every subject under every prompt by its name, those of several evaluations as one."""
    alike: dict[tuple[str, str, str], list[Cell]] = {}
    for subject in (subject for one in evaluations for subject in one["subjects"]):
        for metric, cell in score_cells(subject):
            alike.setdefault((metric, cell.subject, cell.prompt), []).append(cell)
    cells = []
    for (metric, name, prompt), found in alike.items():
        weight = sum(one.weight for one in found)
        cells.append((metric, Cell(name, prompt, sum(one.value * one.weight for one in found) / weight, weight)))
    return cells


def pooled_differences(
    evaluations: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """`score_differences` of several scores.json, subjects paired by name, those of several seeds averaged first."""
    known = {(metric, cell.subject, cell.prompt): cell for metric, cell in _pooled_cells(against)}
    cells: dict[str, list[Cell]] = {}
    for metric, cell in _pooled_cells(evaluations):
        before = known.get((metric, cell.subject, cell.prompt))
        if before is not None:
            cells.setdefault(metric, []).append(_less(cell, before))
    return _with_intervals(cells)


def mean_real(subjects: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What the photos of several subjects reach among themselves, score by score; None where none of them is known."""
    metrics = dict.fromkeys(metric for one in subjects for metric in one["real"])
    return {metric: mean_known([one["real"].get(metric) for one in subjects]) for metric in metrics}


def score_cells(subject: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Every score of a subject's record by its name, weighed by the images it is a mean of (1 for PRES and DIV).

    A template that comes twice is two prompts.
    """
    found: list[tuple[str, Cell]] = []
    seen: dict[str, int] = {}
    for prompt in subject["prompts"]:
        text = prompt["template"] or prompt["scoring_text"]
        key = f"{text}\n{seen.get(text, 0)}"
        seen[text] = seen.get(text, 0) + 1
        for metric, value in prompt["scores"].items():
            if metric in ALL_DEFINITIONS and value is not None:
                weight = _weight(metric, prompt)
                found.append((metric, Cell(subject["name"], key, value, weight)))
    pres = (subject["scores"].get("pres") or {}).get("value")
    return found + ([("pres", Cell(subject["name"], "class", pres))] if pres is not None else [])


def _weight(metric: str, prompt: Mapping[str, Any]) -> float:
    """Of how many images a prompt's score is a mean; 1 for DIV, which is one of pairs."""
    if metric == "div":
        return 1.0
    count = len(prompt["images"])
    return float(round(count * prompt["scores"]["face_found"])) if metric == "face" else float(count)


def score_differences(scores: Mapping[str, Any], against: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each score of one scores.json less that of another, with its 95 % interval, for what both were asked.

    Subjects are paired by name, or by their place where no name is common; prompts by their template. A pair's noise
    that both share (a hard prompt) cancels, so the interval is narrower than those of the two scores. `clear` says that
    it does not hold zero. Scores without a pair are left out.
    """
    cells: dict[str, list[Cell]] = {}
    for one, other in _pairs(scores, against):
        known = {(metric, cell.prompt): cell for metric, cell in score_cells(other)}
        for metric, cell in score_cells(one):
            before = known.get((metric, cell.prompt))
            if before is not None:
                cells.setdefault(metric, []).append(_less(cell, before))
    return _with_intervals(cells)


def _less(cell: Cell, before: Cell) -> Cell:
    return replace(cell, value=cell.value - before.value, weight=min(cell.weight, before.weight))


def _with_intervals(cells: Mapping[str, Sequence[Cell]]) -> dict[str, dict[str, Any]]:
    found = {}
    for metric, differences in cells.items():
        least, most = range_of(metric)
        # Two pairs give an interval wider than all that two scores can differ by.
        interval = bounded_interval(differences, least - most, most - least)
        low, high = interval["low"], interval["high"]
        clear = low is not None and high is not None and (low > 0 or high < 0)
        found[metric] = {**interval, "pairs": len(differences), "clear": clear}
    return found


def _pairs(scores: Mapping[str, Any], against: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    others = {subject["name"]: subject for subject in against["subjects"]}
    named = [(one, others[one["name"]]) for one in scores["subjects"] if one["name"] in others]
    if named or len(scores["subjects"]) != len(against["subjects"]):
        return named
    return list(zip(scores["subjects"], against["subjects"], strict=True))
