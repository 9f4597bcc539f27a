"""Where a person stands: what the project holds so far, and the one command that takes it further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import is_held
from dbcli.project.runs.run_store import RunRecord, damaged_runs, list_runs
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import damaged_subjects, list_subjects
from dbcli.project.sweeps.sweep_records import SweepRecord, list_sweeps
from dbcli.workflows.setup.open import open_project
from dbcli.workflows.subjects.proposed_words import proposed_words

UNFINISHED = ("created", "running", "interrupted", "failed")


@dataclass(frozen=True)
class Step:
    """A command to type next, and why."""

    why: str
    command: str


@dataclass(frozen=True)
class ProjectStatus:
    """A project at a glance; `project` is None outside of one. `next` is never empty, the best step first."""

    project: str | None
    next: list[Step]
    base: str | None = None
    profile: str | None = None
    subjects: list[Subject] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    training_now: str | None = None
    newest: str | None = None
    images: int = 0
    suites: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def where_one_stands(folder: Path | None) -> ProjectStatus:
    """Looks at the project in `folder` or above it; outside of one it says how to begin.

    Raises UsageError for a `folder` that was named and is no project.
    """
    try:
        layout = open_project(folder)
    except UsageError:
        if folder is not None:
            raise
        return ProjectStatus(None, [Step("try it all on the embedded base, in minutes", "dreambooth demo"), BEGIN])
    settings = load_settings(layout)
    subjects, runs = list_subjects(layout), list_runs(layout)
    finished = [run for run in runs if run.state == "finished"]
    newest = finished[-1] if finished else None
    images = 0 if newest is None else _count(layout.images_dir(newest.name), "*.png")
    suites = [] if newest is None else _scored(layout, newest.name)
    training = next((run.name for run in reversed(runs) if _is_training(layout, run)), None)
    return ProjectStatus(
        str(layout.root),
        next_steps(subjects, runs, training, images, suites, _words(layout, subjects), _stopped_sweep(layout)),
        settings.base,
        settings.profile,
        subjects,
        runs,
        training,
        None if newest is None else newest.name,
        images,
        suites,
        damaged_subjects(layout) + damaged_runs(layout),
    )


BEGIN = Step("make a project of your own", "dreambooth init my-project")


def next_steps(
    subjects: Sequence[Subject],
    runs: Sequence[RunRecord],
    training: str | None,
    images: int,
    suites: Sequence[str],
    words: Mapping[str, str],
    sweep: SweepRecord | None = None,
) -> list[Step]:
    """What to type next, the best first; `images` and `suites` are those of the newest finished run.

    `words` are the identifiers proposed for the subjects that have none; `sweep` is the newest that was stopped.
    """
    if training is not None:
        return [Step(f"{training} is training now", f"dreambooth runs show {training}")]
    if not subjects and not runs:
        return [Step("bring in three to six photos", "dreambooth add-subject")]
    learnt = {subject.name for run in runs for subject in run.subjects}
    steps = [] if sweep is None else [_go_on(sweep)]
    # A run of a sweep is gone on with by the sweep, which also scores it and makes the runs after it.
    if runs and runs[-1].state in UNFINISHED and not (sweep is not None and runs[-1].work_key):
        steps.insert(0, _resume(runs[-1]))
    teach = [_teach(subject, words) for subject in subjects if subject.name not in learnt]
    finished = [run for run in runs if run.state == "finished"]
    if not finished:
        return steps + teach
    if not images:
        return [*steps, _draw(finished[-1]), *teach]
    if not suites:
        return [*steps, _measure(finished[-1]), *teach]
    return [*steps, *teach, _take_elsewhere(finished[-1]), _draw(finished[-1])]


def _go_on(sweep: SweepRecord) -> Step:
    return Step(f"{sweep.name} stopped with {sweep.finished} of {sweep.cells} cells finished", sweep.command)


def _stopped_sweep(layout: Layout) -> SweepRecord | None:
    """The newest sweep that was stopped or killed before its end, and that nothing carries out now."""
    stopped = [one for one in list_sweeps(layout) if one.state in ("running", "interrupted")]
    return next((one for one in reversed(stopped) if not is_held(layout.sweep_lock(one.name))), None)


def _resume(run: RunRecord) -> Step:
    return Step(f"{run.name} stopped at step {run.step} of {run.total_steps}", f"dreambooth train --resume {run.name}")


def _measure(run: RunRecord) -> Step:
    return Step("measure how well it was learnt", f"dreambooth eval --run {run.number} --grid")


def _take_elsewhere(run: RunRecord) -> Step:
    target = {"full": "checkpoint", "lora": "lora"}.get(run.method, "embedding")
    return Step("take it to other programs", f"dreambooth export {run.number} --to {target}")


def teaching(layout: Layout, subject: Subject) -> str:
    """The command that teaches a subject, with the word proposed for it if it has none."""
    return _teach(subject, _words(layout, [subject])).command


def _teach(subject: Subject, words: Mapping[str, str]) -> Step:
    token = "" if subject.identifier else f" --token {words[subject.name]}"
    return Step(f"teach the base {subject.name}", f"dreambooth train --subject {subject.name}{token}")


def _words(layout: Layout, subjects: Sequence[Subject]) -> dict[str, str]:
    return {one.name: proposed_words(layout, one)[0] for one in subjects if one.identifier is None}


def _draw(run: RunRecord) -> Step:
    subject = run.subjects[0].name if run.subjects else "subject"
    return Step(f"draw with {run.name}", f'dreambooth generate "a {{{subject}}} in space" --grid')


def _is_training(layout: Layout, run: RunRecord) -> bool:
    return run.state in ("created", "running") and is_held(layout.run_lock(run.name))


def _scored(layout: Layout, run: str) -> list[str]:
    folder = layout.run_dir(run) / "eval"
    return sorted(path.parent.name for path in folder.glob("*/scores.json")) if folder.is_dir() else []


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for path in folder.glob(pattern) if not path.name.startswith("grid-")) if folder.is_dir() else 0
