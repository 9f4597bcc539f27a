"""What a sweep ends with: scores.json, a table in Markdown, one page, one grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbcli import __version__
from dbcli.project.files.atomic import write_bytes, write_json, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.sweeps.sweep_records import CellRecord
from dbcli.workflows.runs.labels import rendered_label
from dbcli.workflows.sweeps.report_images import Ended, galleries, grid, most_prompts, strips_of, words_in
from dbcli.workflows.sweeps.units import PlannedCell, SweepPlan


def write_reports(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Writes everything into `sweeps/NAME/`; returns the scores and the files by kind."""
    from dbcli.reports.sweep_page import sweep_markdown, sweep_page

    folder = layout.sweep_dir(plan.sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    scores = scores_of(layout, plan, ended)
    files = {"scores": folder / "scores.json", "table": folder / "table.md", "report": folder / "report.html"}
    write_json(files["scores"], scores)
    write_text(files["table"], sweep_markdown(scores))
    strips = strips_of(layout, ended)
    page = sweep_page(scores, galleries=galleries(layout, strips), foot=f"Made by dreambooth {__version__}.")
    write_text(files["report"], page)
    if strips:
        files["grid"] = folder / "grid.png"
        write_bytes(files["grid"], png_bytes(grid(layout, strips, plan.sweep.name)))
    return scores, files


def scores_of(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> dict[str, Any]:
    """The document of a sweep: the same for the same work, however often it was stopped on its way."""
    settings, unit = load_settings(layout), plan.cells[0].score
    return {
        "schema": 1,
        "kind": plan.kind,
        "name": plan.sweep.name,
        "about": plan.sweep.about,
        "base": {"source": settings.base, "revision": settings.revision, "hash": settings.base_hash},
        "pictures": {
            "suites": [Path(suite).stem for suite in unit.suites],
            "prompts_of": sorted({most_prompts(record) for _, record in ended if record.state == "finished"}) or [0],
            "count": unit.count,
            "seed": unit.seed,
            "judge": unit.judge,
        },
        "average_over": [name for name in plan.sweep.grid if name in plan.sweep.average_over],
        "rows": _rows(layout, plan, ended),
        **_compared(layout, plan, ended),
        "cells": [_cell(layout, cell, record) for cell, record in ended],
    }


def _compared(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> dict[str, Any]:
    """How the rows differ from the one that the file compares them with; nothing where it names none."""
    from dbcli.metrics.pooling import pooled_differences

    if plan.sweep.against is None:
        return {}
    rows: dict[str, list[Ended]] = {}
    for cell, record in ended:
        label = next(label for name, label in cell.request.values if name not in plan.sweep.average_over)
        rows.setdefault(label, []).append((cell, record))
    scores = {label: [one for _, record in members for one in record.scores] for label, members in rows.items()}
    titles = {label: _label(layout, [("", label)], [cell for cell, _ in members]) for label, members in rows.items()}
    others = [label for label in rows if label != plan.sweep.against]
    return {
        "against": titles[plan.sweep.against],
        "differences": [
            {"label": titles[label], "differences": pooled_differences(scores[label], scores[plan.sweep.against])}
            for label in others
        ],
    }


def _cell(layout: Layout, cell: PlannedCell, record: CellRecord) -> dict[str, Any]:
    from dbcli.metrics.pooling import pool_scores

    pooled = pool_scores(record.scores) if record.scores else {"overall": None, "real": None, "copying": []}
    return {
        "key": record.key,
        "values": dict(cell.request.values),
        "label": _label(layout, cell.request.values, [cell]),
        "state": record.state,
        "error": None if record.error is None else record.error["message"],
        "runs": record.runs,
        **{part: pooled[part] for part in ("overall", "real", "copying")},
        "nearest_right": _share(record),
    }


def _share(record: CellRecord) -> float | None:
    """The share of a cell's images that are nearest to the subject they were asked for."""
    nearest = (record.interference or {}).get("nearest")
    return None if nearest is None else nearest["overall"]["value"]


def _rows(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> list[dict[str, Any]]:
    """One row a setting: its cells pooled over the axes that are averaged."""
    from dbcli.metrics.pooling import pool_scores
    from dbcli.metrics.statistics import Cell, bounded_interval

    groups: dict[tuple[tuple[str, str], ...], list[Ended]] = {}
    for cell, record in ended:
        values = tuple(pair for pair in cell.request.values if pair[0] not in plan.sweep.average_over)
        groups.setdefault(values, []).append((cell, record))
    last = plan.cells[0].stages[-1]
    rows = []
    for values, members in groups.items():
        finished = [record for _, record in members if record.state == "finished"]
        scores = [one for record in finished for one in record.scores]
        shares = [Cell(*_averaged(plan, cell), share) for cell, one in members if (share := _share(one)) is not None]
        rows.append(
            {
                "label": _label(layout, values, [cell for cell, _ in members])
                or f"ours: {last.profile.method}, profile {last.profile_name}",
                "values": dict(values),
                "cells": len(members),
                "finished": len(finished),
                "scores": pool_scores(scores) if scores else None,
                "nearest_right": bounded_interval(shares) if shares else None,
            }
        )
    return rows


def _label(layout: Layout, values: Sequence[tuple[str, str]], cells: Sequence[PlannedCell]) -> str:
    """Labels of axes in one, with the words of the cells' one subject; several are "the subject"."""
    words = {words_in(layout, cell, name) for cell in cells for stage in cell.stages for name, _ in stage.words}
    return rendered_label(" · ".join(label for _, label in values), words.pop() if len(words) == 1 else None)


def _averaged(plan: SweepPlan, cell: PlannedCell) -> tuple[str, str]:
    """Where a cell stands on the first axis that is averaged, and on the others."""
    values = dict(cell.request.values)
    labels = [values[name] for name in plan.sweep.average_over if name in values]
    return (labels[0] if labels else "", " · ".join(labels[1:]))
