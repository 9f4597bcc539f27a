"""What a sweep ends with: scores.json, a table in Markdown, one page, one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli import __version__
from dbcli.errors import SubjectError
from dbcli.project.files.atomic import write_bytes, write_json, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_store import load_subject, photo_paths
from dbcli.project.sweeps.sweep_records import CellRecord
from dbcli.workflows.images.grids import opened
from dbcli.workflows.runs.labels import rendered_label
from dbcli.workflows.sweeps.plan import PlannedCell, SweepPlan

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.reports.page import ImageRow

Ended = tuple[PlannedCell, CellRecord]
TILE_PX = 112
# More columns than this, and a grid is wider than a screen.
MOST_COLUMNS = 10
SHORT_SCORES = (("dino", "DINO"), ("clip_t", "CLIP-T"))


def write_reports(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Writes everything into `sweeps/NAME/`; returns the scores and the files by kind."""
    from dbcli.reports.sweep_page import sweep_markdown, sweep_page

    folder = layout.sweep_dir(plan.sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    scores = scores_of(layout, plan, ended)
    files = {"scores": folder / "scores.json", "table": folder / "table.md", "report": folder / "report.html"}
    write_json(files["scores"], scores)
    write_text(files["table"], sweep_markdown(scores))
    strips = _strips(layout, plan, ended)
    page = sweep_page(scores, galleries=_galleries(layout, strips), foot=f"Made by dreambooth {__version__}.")
    write_text(files["report"], page)
    if strips:
        files["grid"] = folder / "grid.png"
        write_bytes(files["grid"], png_bytes(_grid(layout, strips, plan.sweep.name)))
    return scores, files


def scores_of(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> dict[str, Any]:
    """The document of a sweep: the same for the same work, however often it was stopped on its way."""
    settings = load_settings(layout)
    unit = plan.cells[0].score
    cells = [_cell(layout, cell, record) for cell, record in ended]
    return {
        "schema": 1,
        "kind": plan.kind,
        "name": plan.sweep.name,
        "about": plan.sweep.about,
        "base": {"source": settings.base, "revision": settings.revision, "hash": settings.base_hash},
        "pictures": {
            "suites": [Path(suite).stem for suite in unit.suites],
            "prompts_of": sorted({_prompts(record) for _, record in ended if record.state == "finished"}) or [0],
            "count": unit.count,
            "seed": unit.seed,
            "judge": unit.judge,
        },
        "average_over": [name for name in plan.sweep.grid if name in plan.sweep.average_over],
        "rows": _rows(layout, plan, ended),
        "cells": cells,
    }


def _prompts(record: CellRecord) -> int:
    """How many prompts each subject of a cell was drawn under, the most."""
    by_subject: dict[str, int] = {}
    for image in record.pictures:
        by_subject[image["subject"]] = by_subject.get(image["subject"], 0) + 1
    return max(by_subject.values(), default=0)


def _cell(layout: Layout, cell: PlannedCell, record: CellRecord) -> dict[str, Any]:
    from dbcli.metrics.pooling import pool_scores

    pooled = pool_scores(record.scores) if record.scores else None
    return {
        "key": record.key,
        "values": dict(cell.request.values),
        "label": rendered_label(
            " · ".join(dict(cell.request.values).values()), _shared_words(layout, [(cell, record)])
        ),
        "state": record.state,
        "error": None if record.error is None else record.error["message"],
        "runs": record.runs,
        "overall": None if pooled is None else pooled["overall"],
        "real": None if pooled is None else pooled["real"],
        "copying": [] if pooled is None else pooled["copying"],
        "nearest_right": _share(record),
    }


def _share(record: CellRecord) -> float | None:
    """The share of a cell's pictures that are nearest to the subject they were asked for."""
    nearest = (record.interference or {}).get("nearest")
    return None if nearest is None else nearest["overall"]["value"]


def _rows(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> list[dict[str, Any]]:
    """One row a setting: its cells pooled over the axes that are averaged."""
    from dbcli.metrics.pooling import pool_scores
    from dbcli.metrics.statistics import Cell, bounded_interval

    groups: dict[tuple[tuple[str, str], ...], list[Ended]] = {}
    for cell, record in ended:
        groups.setdefault(_row_values(plan, cell), []).append((cell, record))
    rows = []
    for values, members in groups.items():
        records = [record for _, record in members]
        shares = [Cell(*_averaged(plan, cell), share) for cell, one in members if (share := _share(one)) is not None]
        scores = [one for record in records if record.state == "finished" for one in record.scores]
        rows.append(
            {
                "label": rendered_label(" · ".join(label for _, label in values), _shared_words(layout, members))
                or _whole_label(plan),
                "values": dict(values),
                "cells": len(records),
                "finished": sum(record.state == "finished" for record in records),
                "scores": pool_scores(scores) if scores else None,
                "nearest_right": bounded_interval(shares) if shares else None,
            }
        )
    return rows


def _shared_words(layout: Layout, members: Sequence[Ended]) -> tuple[str, str] | None:
    """The words of the one subject of these cells; None where they have several."""
    found = {_words(layout, cell, name) for cell, _ in members for stage in cell.stages for name, _ in stage.words}
    return next(iter(found)) if len(found) == 1 else None


def _row_values(plan: SweepPlan, cell: PlannedCell) -> tuple[tuple[str, str], ...]:
    return tuple((name, label) for name, label in cell.request.values if name not in plan.sweep.average_over)


def _averaged(plan: SweepPlan, cell: PlannedCell) -> tuple[str, str]:
    """Where a cell stands on the first axis that is averaged, and on the others."""
    order = {name: place for place, name in enumerate(plan.sweep.average_over)}
    found = sorted((order[name], label) for name, label in cell.request.values if name in order)
    labels = [label for _, label in found]
    return (labels[0] if labels else "", " · ".join(labels[1:]))


def _whole_label(plan: SweepPlan) -> str:
    stage = plan.cells[0].stages[-1]
    return f"ours: {stage.profile.method}, profile {stage.profile_name}"


class _Strip:
    """The pictures of one cell for one subject: the first of each prompt, more of them where prompts are few."""

    def __init__(self, label: str, note: str, labels: list[str], files: list[Path], each: int) -> None:
        self.label, self.note, self.labels, self.files, self.each = label, note, labels, files, each

    @property
    def headings(self) -> list[str]:
        """One a prompt, over all its images."""
        return self.labels[:: self.each]


def _strips(layout: Layout, plan: SweepPlan, ended: Sequence[Ended]) -> dict[str, list[_Strip]]:
    """A strip a cell, by subject; pictures that a person has removed since are left out."""
    found: dict[str, list[_Strip]] = {}
    for cell, record in ended:
        by_subject: dict[str, list[tuple[str, Path]]] = {}
        each = max(1, (MOST_COLUMNS - 1) // max(1, _prompts(record)))
        for image in record.pictures:
            files = [layout.root / file for file in image["files"]][:each]
            pairs = [(image["label"], file) for file in files if file.is_file()]
            by_subject.setdefault(image["subject"], []).extend(pairs)
        axes = " · ".join(value for name, value in cell.request.values if name != "subject")
        for name, pairs in by_subject.items():
            if pairs:
                label = rendered_label(axes, _words(layout, cell, name)) or name
                labels, files = [one for one, _ in pairs], [one for _, one in pairs]
                strip = _Strip(label, _note(record, name), labels, files, each)
                found.setdefault(name, []).append(strip)
    return found


def _note(record: CellRecord, subject: str) -> str:
    known: list[str] = []
    for found in (one for scores in record.scores[:1] for one in scores["subjects"] if one["name"] == subject):
        for metric, title in SHORT_SCORES:
            value = (found["scores"].get(metric) or {}).get("value")
            known += [f"{title} {value:.3f}"] if value is not None else []
    return " · ".join(known)


def _photos(layout: Layout, name: str) -> list[Image.Image]:
    try:
        return opened([path for path in photo_paths(layout, load_subject(layout, name)) if path.is_file()])
    except SubjectError:
        return []


def _galleries(layout: Layout, strips: Mapping[str, list[_Strip]]) -> list[tuple[str, list[ImageRow]]]:
    """One gallery a subject: its photos, then a strip a cell."""
    from dbcli.reports.page import ImageRow

    return [
        (
            name,
            [
                ImageRow(f"photos of {name}", _photos(layout, name), is_photos=True),
                *(
                    ImageRow(strip.label, opened(strip.files), note=strip.note, captions=strip.labels)
                    for strip in found
                ),
            ],
        )
        for name, found in strips.items()
    ]


def _grid(layout: Layout, strips: Mapping[str, list[_Strip]], title: str) -> Image.Image:
    """One picture of all: a row a subject with a photo before its pictures, or where cells are many, a part each."""
    from dbcli.reports.grids import GridRow, draw_grid, stacked

    if all(len(found) == 1 for found in strips.values()):
        by_headings: dict[tuple[tuple[str, ...], int], list[tuple[str, _Strip]]] = {}
        for name, (strip,) in strips.items():
            by_headings.setdefault((tuple(strip.headings), strip.each), []).append((name, strip))
        groups = list(by_headings.items())
        parts = [
            _side_by_side(layout, members, headings, each, title=title if not number else None)
            for number, ((headings, each), members) in enumerate(groups)
        ]
        return stacked(parts)
    parts = []
    for name, found in strips.items():
        rows = [GridRow(strip.label, opened(strip.files[:MOST_COLUMNS]), note=strip.note) for strip in found]
        columns = max(len(row.images) for row in rows)
        photos = GridRow(f"photos of {name}", _photos(layout, name)[:columns], is_photos=True)
        heading = title if not parts else None
        parts.append(draw_grid([photos], tile_px=TILE_PX, title=heading, least_columns=columns))
        parts.append(draw_grid(rows, tile_px=TILE_PX, headings=found[0].headings, group=found[0].each))
    return stacked(parts)


def _side_by_side(
    layout: Layout, members: Sequence[tuple[str, _Strip]], headings: Sequence[str], each: int, *, title: str | None
) -> Image.Image:
    """A row a subject: its photos, as many as a prompt has images, then its images under what they show."""
    from dbcli.reports.grids import GridRow, draw_grid

    rows = []
    for name, strip in members:
        photos: list[Image.Image | None] = [*_photos(layout, name)[:each]]
        photos += [None] * (each - len(photos))
        rows.append(GridRow(name, [*photos, *opened(strip.files[: MOST_COLUMNS - each])], note=strip.note))
    return draw_grid(rows, tile_px=TILE_PX, headings=["photos", *headings], group=each, title=title)


def _words(layout: Layout, cell: PlannedCell, subject: str) -> tuple[str, str]:
    """A subject's word in a cell, and its class noun; what is not known any longer is the subject itself."""
    word = next((word for stage in cell.stages for name, word in stage.words if name == subject), "")
    try:
        return word, load_subject(layout, subject).class_noun
    except SubjectError:
        return word, subject
