"""Runs side by side: the same prompts and seeds with each, scored, and set against the first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli import __version__
from dbcli.errors import UsageError
from dbcli.project.files.atomic import write_bytes, write_json, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.runs.run_store import RunRecord, list_runs
from dbcli.project.seeds import next_seed
from dbcli.workflows.evaluation.evaluate import (
    IMAGES_PER_PROMPT,
    Scorer,
    check_suites,
    checked_seed,
    chosen_suites,
    evaluation_sampler,
    scored,
)
from dbcli.workflows.evaluation.judges import judges_of
from dbcli.workflows.evaluation.photos import check_photos
from dbcli.workflows.evaluation.report import run_charts
from dbcli.workflows.evaluation.request import ScoringOptions
from dbcli.workflows.images.grids import opened, photos_of
from dbcli.workflows.machine_use import computing
from dbcli.workflows.memory.errors import give_back
from dbcli.workflows.models.loaded import loaded_run
from dbcli.workflows.progress import Progress
from dbcli.workflows.runs.choose import chosen_run
from dbcli.workflows.runs.differences import differing_settings
from dbcli.workflows.setup.effective_settings import check_judge, profile_of
from dbcli.workflows.signals import StopSignal, listening

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.metrics.judges.judge import Judges
    from dbcli.metrics.protocol import SubjectImages
    from dbcli.metrics.suites import Suite
    from dbcli.reports.comparison import ComparedPrompt

# Beyond this a page is no longer a comparison a person can look at.
MOST_RUNS = 8


@dataclass(frozen=True)
class Comparison:
    """One suite over several runs: what comparison.json holds, and where page and grid lie."""

    suite: str
    document: dict[str, Any]
    file: Path
    report: Path
    grid: Path


@dataclass(frozen=True)
class _Part:
    """One run's side of a comparison by one suite."""

    suite: str
    record: RunRecord
    scores: dict[str, Any]
    subjects: list[SubjectImages]


def compare(
    layout: Layout, runs: Sequence[str], scoring: ScoringOptions, progress: Progress, *, offline: bool
) -> list[Comparison]:
    """Generates what is missing of the suites with every run, scores all, and sets the others against the first.

    The seed is the first run's unless one is given. Raises UsageError for fewer than two runs, or one named twice,
    and whatever scoring one of them raises.
    """
    check_judge(scoring.judge)
    records = _records(layout, runs)
    chosen = chosen_suites(layout, scoring, progress)
    for record in records:
        # A random seed is settled once for all of them.
        scoring = replace(scoring, seed=checked_seed(layout, record, scoring))
        check_suites(layout, record, chosen, progress)
    check_photos(layout, records, progress)
    profile = profile_of(layout, records[0])
    judges = judges_of(layout, records, scoring, profile, progress, offline=offline)
    first = next_seed(profile.train.seed, 0) if scoring.seed is None else scoring.seed
    scoring = replace(scoring, seed=first)
    parts: dict[str, list[_Part]] = {suite.name: [] for suite in chosen}
    with computing("a comparison", progress), listening() as stop:
        for record in records:
            progress.note(f"Generating with {record.name}")
            for part in _parts_of(layout, record, chosen, scoring, judges, progress, stop, offline):
                parts[part.suite].append(part)
            # One model at a time: what is in cycles of references would stay until Python looks for it.
            give_back()
    seeds = [next_seed(first, index) for index in range(scoring.count or IMAGES_PER_PROMPT)]
    return [_written(layout, suite, parts[suite.name], seeds) for suite in chosen]


def _parts_of(
    layout: Layout,
    record: RunRecord,
    suites: Sequence[Suite],
    scoring: ScoringOptions,
    judges: Judges,
    progress: Progress,
    should_stop: StopSignal,
    offline: bool,
) -> list[_Part]:
    """One run's side of every suite. The model goes with the call: the next run needs its memory."""
    model = loaded_run(layout, record, progress, offline=offline)
    sampler = evaluation_sampler(model.profile, record, scoring.count, scoring.seed, progress, should_stop)
    scorer = Scorer(model, record, sampler, judges, faces=scoring.faces)
    return [_Part(suite.name, record, *scored(scorer, suite)) for suite in suites]


def _records(layout: Layout, runs: Sequence[str]) -> list[RunRecord]:
    found = [record for name in runs if (record := chosen_run(layout, name)) is not None]
    names = [record.name for record in found]
    if len(found) < len(runs):
        raise UsageError("The bare base has learnt no subject to score.", hint=_two_runs(layout))
    if not 2 <= len(found) <= MOST_RUNS or len(set(names)) < len(names):
        raise UsageError(
            f"A comparison takes two to {MOST_RUNS} different runs, found {', '.join(names) or 'none'}.",
            hint=_two_runs(layout),
        )
    return found


def _two_runs(layout: Layout) -> str:
    """A comparison of the two newest runs; with fewer finished ones, what there is to choose from."""
    newest = [record.number for record in list_runs(layout) if record.state == "finished" and record.subjects][-2:]
    return f"dreambooth runs compare {newest[0]} {newest[1]}" if len(newest) == 2 else "dreambooth runs list"


def _written(layout: Layout, suite: Suite, parts: Sequence[_Part], seeds: Sequence[int]) -> Comparison:
    """Differences, page and grid of one suite, into the comparison's folder."""
    from dbcli.metrics.pooling import score_differences
    from dbcli.reports.comparison import comparison_grid, comparison_page

    records = [part.record for part in parts]
    names = [record.name for record in records]
    folder = layout.comparison_dir(_name(records), suite.name)
    folder.mkdir(parents=True, exist_ok=True)
    differences = [(part.record.name, score_differences(part.scores, parts[0].scores)) for part in parts[1:]]
    settings = differing_settings(records)
    document = {
        "schema": 1,
        "suite": suite.name,
        "seeds": list(seeds),
        "runs": [{"run": part.record.name, "scores": part.scores} for part in parts],
        "differences": [{"run": name, "against": names[0], "scores": found} for name, found in differences],
        "settings": {key: dict(zip(names, values, strict=True)) for key, values in settings.items()},
    }
    write_json(folder / "comparison.json", document)
    photos = {name: opened(files) for record in records for name, files in photos_of(layout, record).items()}
    prompts = _prompts(parts)
    title = f"{' · '.join(names)} · {suite.name}"
    page = comparison_page(
        title,
        [(part.record.name, part.scores) for part in parts],
        differences,
        settings,
        photos,
        prompts,
        [chart for record in records for chart in run_charts(layout, record)],
        foot=f"Made by dreambooth {__version__}.",
        seeds=seeds,
    )
    write_text(folder / "report.html", page)
    write_bytes(folder / "grid.png", png_bytes(comparison_grid(photos, prompts, title=title, seeds=seeds)))
    return Comparison(suite.name, document, *(folder / name for name in ("comparison.json", "report.html", "grid.png")))


def _name(records: Sequence[RunRecord]) -> str:
    """The runs' numbers; a hash where two folders of runs were joined and numbers are no names any longer."""
    numbers = "-".join(f"{record.number:04d}" for record in records)
    if len({record.number for record in records}) == len(records) and len(numbers) <= 60:
        return numbers
    return hashlib.sha256("\n".join(record.name for record in records).encode()).hexdigest()[:12]


def _prompts(parts: Sequence[_Part]) -> list[ComparedPrompt]:
    """Every template in the suite's order, with each run's images of it; of each subject where a run has several."""
    from dbcli.reports.comparison import ComparedPrompt

    is_multi_subject = any(len(part.subjects) > 1 for part in parts)
    labels: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str], list[tuple[str, list[Image.Image], dict[str, Any]]]] = {}
    for part in parts:
        for subject, table in zip(part.subjects, part.scores["subjects"], strict=True):
            for prompt, scores in zip(subject.prompts, table["prompts"], strict=True):
                key = (subject.name if is_multi_subject else "", prompt.template)
                labels.setdefault(key, f"{prompt.label} ({subject.name})" if is_multi_subject else prompt.label)
                found.setdefault(key, []).append((part.record.name, opened(prompt.images), scores))
    return [ComparedPrompt(labels[key], rows) for key, rows in found.items()]
