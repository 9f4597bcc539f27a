"""Tables of many runs: a row per setting with its mean over subjects and seeds, a row per cell, published rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from dbcli.counts import counted
from dbcli.reports.comparison import difference_table
from dbcli.reports.tables import METRICS, NOTHING, PUBLISHED, Table, format_interval, format_score, known_metrics

PUBLISHED_SOURCE = (
    "Rows marked (paper): Ruiz et al., DreamBooth, CVPR 2023 (arXiv:2208.12242), Table 1: 30 subjects, 25 prompts, "
    "4 images per prompt. Last row: the study behind this program, on Stable Diffusion v1.4."
)
PAPER_JUDGES = ("paper", "paper-l")
NEAREST = "right ↑"
REAL = "real images"


def beside_published(scores: Mapping[str, Any]) -> bool:
    """Whether published values may stand beside these: those of a benchmark by the judges that the paper used."""
    return bool(scores["kind"] == "bench" and scores["pictures"]["judge"] in PAPER_JUDGES)


def rows_table(scores: Mapping[str, Any], *, with_published: bool, with_intervals: bool = True) -> Table:
    """The rows of a sweep's scores.json: real images first, then each setting, then what was published."""

    def number(score: Mapping[str, float | None] | None, metric: str = "") -> str:
        return format_interval(score, metric) if with_intervals else format_score((score or {}).get("value"), metric)

    scored = [row for row in scores["rows"] if row["scores"] is not None]
    wanted = {metric for row in scored for metric in known_metrics(row["scores"])}
    wanted |= {"dino", "clip_i", "clip_t"} if with_published else set()
    metrics = [metric for metric in METRICS if metric in wanted]
    rows: list[tuple[str, ...]] = []
    with_nearest = any(row["nearest_right"] is not None for row in scores["rows"])
    gap = ("",) if with_nearest else ()
    real_title = f"ours: {REAL}" if with_published else REAL
    if scored:
        rows += [(title, "", *values, *gap) for title, values in _real_rows(scored, metrics, real_title)]
    for row in scores["rows"]:
        overall = row["scores"]["overall"] if row["scores"] is not None else {}
        done = f"{row['finished']} of {row['cells']}"
        nearest = (number(row["nearest_right"]),) if with_nearest else ()
        rows.append((row["label"], done, *(number(overall.get(metric), metric) for metric in metrics), *nearest))
    if with_published:
        rows += [
            (name, "", *(format_score(values.get(metric), metric) for metric in metrics), *gap)
            for name, values in PUBLISHED
        ]
    headers = ("", "cells", *(METRICS[metric] for metric in metrics), *((NEAREST,) if with_nearest else ()))
    return Table(headers, tuple(rows), _caption(scores, with_published))


def _real_rows(
    scored: Sequence[Mapping[str, Any]], metrics: Sequence[str], title: str
) -> list[tuple[str, tuple[str, ...]]]:
    """What the photos reach, once where rows share their subjects; where they do not, a row each that says whose."""
    reals = {row["label"]: [format_score(row["scores"]["real"].get(one), one) for one in metrics] for row in scored}
    found = list(dict.fromkeys(map(tuple, reals.values())))
    if len(found) > 1 and "beyond_class" in metrics:
        # How far photos are beyond the class depends on the class as each run draws it: that is no one number.
        place = metrics.index("beyond_class")
        alike = {values[:place] + (NOTHING,) + values[place + 1 :] for values in found}
        found = list(alike) if len(alike) == 1 else found
    if len(found) == 1:
        return [(title, found[0])]
    return [(f"{title}: {label}", tuple(values)) for label, values in reals.items()]


def against_table(scores: Mapping[str, Any]) -> Table | None:
    """Each row less the one that the sweep compares them with; None where it compares with none, or has no scores."""
    if not any(one["differences"] for one in scores.get("differences", ())):
        return None
    rows = [(one["label"], one["differences"]) for one in scores["differences"]]
    return difference_table(rows, scores["against"])


def against_note(scores: Mapping[str, Any]) -> list[str]:
    """A line where a sweep compares its rows with one, and no scores of the same subjects are there for it."""
    differences = scores.get("differences", ())
    if not differences or any(one["differences"] for one in differences):
        return []
    return [f"Nothing can be compared with {scores['against']}: no subject has scores both there and in another row."]


def _caption(scores: Mapping[str, Any], with_published: bool) -> str:
    over = " and ".join(scores["average_over"])
    mean = f"Means over {over}, with 95 % intervals; " if over else "With 95 % intervals; "
    right = any(row["nearest_right"] is not None for row in scores["rows"])
    mean += "real images: the photos among themselves; "
    mean += "right: the share of images nearest to the requested subject; " if right else ""
    return mean + "↑ higher is better, ↓ lower." + (f" {PUBLISHED_SOURCE}" if with_published else "")


def cells_table(scores: Mapping[str, Any]) -> Table:
    """A row per cell: its values on the axes, how it ended, its scores and its runs."""
    cells = scores["cells"]
    axes = list(dict.fromkeys(name for cell in cells for name in cell["values"]))
    overall = [cell["overall"] or {} for cell in cells]
    metrics = [metric for metric in METRICS if any((one.get(metric) or {}).get("value") is not None for one in overall)]
    with_nearest = any(cell["nearest_right"] is not None for cell in cells)
    rows = tuple(
        (
            cell_label(cell),
            cell["state"],
            *(format_score((found.get(metric) or {}).get("value"), metric) for metric in metrics),
            *((format_score(cell["nearest_right"]),) if with_nearest else ()),
            " → ".join(cell["runs"]) or NOTHING,
        )
        for cell, found in zip(cells, overall, strict=True)
    )
    headers = (
        " · ".join(axes),
        "state",
        *(METRICS[metric] for metric in metrics),
        *((NEAREST,) if with_nearest else ()),
        "runs",
    )
    return Table(headers, rows, "Every cell")


def cell_label(cell: Mapping[str, Any]) -> str:
    """What a cell is called: its labels on the axes, with the subject's words where a template is one."""
    return str(cell.get("label") or " · ".join(cell["values"].values()) or "run")


def differences(scores: Mapping[str, Any]) -> str:
    """What differs between our rows and the published ones, in one paragraph."""
    ours = next(row["scores"] for row in scores["rows"] if row["scores"] is not None)
    judges = ", ".join(f"{part} by {judge['model']}" for part, judge in ours["protocol"]["judges"].items())
    subjects = len(ours["subjects"])
    images = scores["pictures"]
    count = images["count"]
    least, most = min(images["prompts_of"]), max(images["prompts_of"])
    prompts = f"{most}" if least == most else f"{least} to {most}"
    return (
        "What differs: the paper scores 30 subjects under 25 prompts with 4 images each, by DINO ViT-S/16 and a CLIP "
        "whose size it does not state, on Imagen and Stable Diffusion; public code differs further in what it crops, "
        f"pairs and scales. Ours: the base {scores['base']['source']}, {counted(subjects, 'subject')}, "
        f"{prompts} prompts of {' + '.join(images['suites'])} with {counted(count, 'image')} each, {judges}; plain "
        "cosines of all pairs, the identifier left out of the text. Compare within a judge and a suite, never across."
    )
