"""Runs beside each other: one page, one grid, tables of scores and of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dbcli.reports.grids import GridRow, draw_grid
from dbcli.reports.page import (
    Block,
    Chart,
    PictureRow,
    Section,
    TableBlock,
    Text,
    gallery,
    prompt_note,
    protocol_blocks,
    render_page,
)
from dbcli.reports.tables import METRICS, Table, format_interval, format_score, known_metrics


@dataclass(frozen=True)
class ComparedPrompt:
    """One prompt as every run drew it: `rows` are (run, pictures, its scores or None), seeds in the same order."""

    label: str
    rows: Sequence[tuple[str, Sequence[Image.Image], Mapping[str, Any] | None]]


def score_table(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """A row a run, a column a score, the photos' own values in the first row where all runs have the same."""
    metrics = [metric for metric in METRICS if any(metric in known_metrics(scores) for _, scores in runs)]
    rows = [(name, *(format_interval(scores["overall"].get(metric)) for metric in metrics)) for name, scores in runs]
    real = [tuple(format_score(scores["real"].get(metric)) for metric in metrics) for _, scores in runs]
    if len(set(real)) == 1:
        rows.insert(0, ("photos (real-real)", *real[0]))
    caption = "Scores with 95 % intervals; ↑ higher is better, ↓ lower. DINO above real-real is copying."
    return Table(("", *(METRICS[metric] for metric in metrics)), tuple(rows), caption)


def difference_table(differences: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]], against: str) -> Table:
    """A row a run: each score less that of `against`, over the prompts that both drew; * where zero is outside."""
    metrics = [metric for metric in METRICS if any(metric in found for _, found in differences)]
    rows = tuple((name, *(_signed(found.get(metric)) for metric in metrics)) for name, found in differences)
    caption = (
        f"Differences from {against}, paired by prompt, with 95 % intervals; * the interval does not hold zero. "
        "The intervals tell of prompts, not of training the same run with another seed."
    )
    return Table(("", *(METRICS[metric] for metric in metrics)), rows, caption)


def settings_table(names: Sequence[str], settings: Mapping[str, Sequence[str]]) -> Table:
    """The settings in which the runs differ, a column a run."""
    rows = tuple((key, *values) for key, values in settings.items())
    return Table(("setting", *names), rows, "What differs in how they were made", False)


def comparison_page(
    title: str,
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    differences: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]],
    settings: Mapping[str, Sequence[str]],
    photos: Mapping[str, Sequence[Image.Image]],
    prompts: Sequence[ComparedPrompt],
    charts: Sequence[Chart] = (),
    foot: str = "",
) -> str:
    """The whole page: scores, differences, settings, then every prompt with a strip a run beneath each other."""
    names = [name for name, _ in runs]
    blocks: list[Block] = [
        Text(f"{name}: {', '.join(scores['copying'])} copies the photos (DINO above their own value).", is_warning=True)
        for name, scores in runs
        if scores["copying"]
    ]
    blocks += [TableBlock(score_table(runs)), TableBlock(difference_table(differences, names[0]))]
    if settings:
        blocks.append(TableBlock(settings_table(names, settings)))
    else:
        blocks.append(Text("The runs were made with the same settings."))
    galleries = [gallery("photos", [PictureRow(f"photos of {name}", images, is_photos=True)
                                    for name, images in photos.items()])]  # fmt: skip
    galleries += [
        gallery(
            prompt.label,
            [
                PictureRow(name, images, note=prompt_note(scores) if scores is not None else "")
                for name, images, scores in prompt.rows
            ],
        )
        for prompt in prompts
    ]
    sections = [Section("Scores", tuple(blocks)), Section("Pictures", tuple(galleries))]
    if charts:
        sections.append(Section("Curves", tuple(charts)))
    sections.append(Section("How it was measured", protocol_blocks(runs[0][1]["protocol"])))
    lead = f"{' and '.join(names)}: {len(prompts)} prompts, the same seeds in every strip."
    return render_page(title, sections, lead=lead, foot=foot)


def comparison_grid(
    photos: Mapping[str, Sequence[Image.Image]], prompts: Sequence[ComparedPrompt], *, title: str, seeds: Sequence[int]
) -> Image.Image:
    """The same as one picture: photos first, then for every prompt a row a run, seeds as columns."""
    columns = max(1, len(seeds))
    rows = [GridRow(f"photos of {name}", list(images)[:columns], is_photos=True) for name, images in photos.items()]
    rows += [GridRow(prompt.label, list(images), note=name) for prompt in prompts for name, images, _ in prompt.rows]
    return draw_grid(rows, tile_px=128, title=title, columns=columns, headings=[f"seed {seed}" for seed in seeds])


def _signed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    mark = " *" if found["clear"] else ""
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:+.3f}{mark}"
    return f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}){mark}"
