"""Runs beside each other: one page, one grid, tables of scores and of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dbcli.counts import counted
from dbcli.reports.grids import GridRow, draw_grid, stacked
from dbcli.reports.page import (
    Block,
    Chart,
    Gallery,
    ImageRow,
    PageSection,
    Text,
    prompt_note,
    protocol_blocks,
    render_page,
    verdict_blocks,
)
from dbcli.reports.tables import COPYING_NOTE, METRICS, Table, format_interval, format_score, known_metrics
from dbcli.shares import SHARES

# More columns than this, and a grid is wider than a screen.
MOST_COLUMNS = 10
TILE_PX = 128


@dataclass(frozen=True)
class ComparedPrompt:
    """One prompt as every run generated it: `rows` are (run, images, its scores or None), seeds in the same order."""

    label: str
    rows: Sequence[tuple[str, Sequence[Image.Image], Mapping[str, Any] | None]]

    @property
    def images(self) -> int:
        """How many images the run with the most has."""
        return max((len(images) for _, images, _ in self.rows), default=0)


def score_table(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """A row per run, a column per score, the photos' own values in the first row where all runs have the same."""
    metrics = [metric for metric in METRICS if any(metric in known_metrics(scores) for _, scores in runs)]
    rows = [
        (name, *(format_interval(scores["overall"].get(metric), metric) for metric in metrics)) for name, scores in runs
    ]
    real = [tuple(format_score(scores["real"].get(metric), metric) for metric in metrics) for _, scores in runs]
    if len(set(real)) == 1:
        rows.insert(0, ("photos (real-real)", *real[0]))
    caption = f"Scores with 95 % intervals; ↑ higher is better, ↓ lower; {COPYING_NOTE}"
    return Table(("", *(METRICS[metric] for metric in metrics)), tuple(rows), caption)


def difference_table(differences: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]], against: str) -> Table:
    """A row per run: each score less that of `against`, over the prompts of both; * where zero is outside."""
    metrics = [metric for metric in METRICS if any(metric in found for _, found in differences)]
    rows = tuple(
        (name, _most_pairs(found), *(_signed(found.get(metric), metric) for metric in metrics))
        for name, found in differences
    )
    caption = (
        f"Differences from {against}, paired by subject and prompt, with 95 % intervals; * the interval does not "
        "contain zero. The intervals cover variation over subjects and prompts, not over training seeds."
    )
    return Table(("", "pairs", *(METRICS[metric] for metric in metrics)), rows, caption)


def settings_table(names: Sequence[str], settings: Mapping[str, Sequence[str]]) -> Table:
    """The settings in which the runs differ, a column per run."""
    rows = tuple((key, *values) for key, values in settings.items())
    return Table(("setting", *names), rows, "How their settings differ", False)


def comparison_page(
    title: str,
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    differences: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]],
    settings: Mapping[str, Sequence[str]],
    photos: Mapping[str, Sequence[Image.Image]],
    prompts: Sequence[ComparedPrompt],
    charts: Sequence[Chart] = (),
    foot: str = "",
    seeds: Sequence[int] = (),
) -> str:
    """The whole page: scores, differences, settings, then every prompt with a strip per run beneath each other."""
    names = [name for name, _ in runs]
    blocks: list[Block] = [
        Text(f"{name}: {', '.join(scores['copying'])} copies the photos.", is_warning=True)
        for name, scores in runs
        if scores["copying"]
    ]
    blocks += [block for name, scores in runs for block in verdict_blocks(scores, name)]
    blocks += [score_table(runs), difference_table(differences, names[0])]
    if settings:
        blocks.append(settings_table(names, settings))
    else:
        blocks.append(Text("The runs were made with the same settings."))
    galleries = [
        Gallery("photos", [ImageRow(f"photos of {name}", images, is_photos=True) for name, images in photos.items()])
    ]
    captions = [f"seed {seed}" for seed in seeds]
    galleries += [
        Gallery(
            prompt.label,
            [
                ImageRow(name, images, note=prompt_note(scores) if scores is not None else "", captions=captions)
                for name, images, scores in prompt.rows
            ],
        )
        for prompt in prompts
    ]
    sections = [PageSection("Scores", tuple(blocks)), PageSection("Images", tuple(galleries))]
    if charts:
        sections.append(PageSection("Curves", tuple(charts)))
    sections.append(PageSection("How it was measured", protocol_blocks(runs[0][1]["protocol"])))
    lead = f"{' and '.join(names)}: {counted(len(prompts), 'prompt')}, the same seeds in every strip."
    return render_page(title, sections, lead=lead, foot=foot)


def comparison_grid(
    photos: Mapping[str, Sequence[Image.Image]], prompts: Sequence[ComparedPrompt], *, title: str, seeds: Sequence[int]
) -> Image.Image:
    """The same as one image, a column per run: photos first, then a row per prompt.

    Where the runs have few images each stands with all its seeds in its column; else each seed has a row of its own.
    """
    names = list(dict.fromkeys(name for prompt in prompts for name, _, _ in prompt.rows))
    most = max((prompt.images for prompt in prompts), default=1)
    group = most if most * len(names) <= MOST_COLUMNS else 1
    columns = group * len(names)
    parts = [
        GridRow(f"photos of {name}", list(images)[:columns], is_photos=True)
        for name, images in photos.items()
        if images
    ]
    rows = []
    for prompt in prompts:
        by_run = {name: list(images) for name, images, _ in prompt.rows}
        for start in range(0, prompt.images, group):
            tiles = [tile for name in names for tile in _filled(by_run.get(name, [])[start : start + group], group)]
            rows.append(GridRow(prompt.label, tiles, note=_seeds(seeds, start, group, prompt.images)))
    generated = draw_grid(rows, tile_px=TILE_PX, title=None if parts else title, headings=names, group=group)
    if not parts:
        return generated
    return stacked([draw_grid(parts, tile_px=TILE_PX, title=title, least_columns=columns), generated])


def _filled(images: Sequence[Image.Image], count: int) -> list[Image.Image | None]:
    """So many places, those without an image empty: a run that lacks one keeps its column."""
    return [*images, *([None] * (count - len(images)))]


def _seeds(seeds: Sequence[int], start: int, group: int, images: int) -> str:
    found = list(seeds)[start : min(start + group, images)]
    return ("seed " if len(found) == 1 else "seeds ") + ", ".join(map(str, found)) if found else ""


def _most_pairs(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How many pairs of subject and prompt a row rests on; PRES, which has one a subject, has fewer."""
    return str(max((one["pairs"] for one in found.values()), default=0))


def _signed(found: Mapping[str, Any] | None, metric: str) -> str:
    if found is None:
        return "–"
    form = "+.0%" if metric in SHARES else "+.3f"
    mark = " *" if found["clear"] else ""
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:{form}}{mark}"
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}}){mark}"
