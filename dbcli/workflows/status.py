"""Where a person stands: what the project holds so far, and the one command that takes it further."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import is_held
from dbcli.project.runs.run_store import RunRecord, read_runs
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.known_runs import FINISHED, UNFINISHED, newest_first
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import damaged_subjects, list_subjects
from dbcli.project.sweeps.sweep_records import SweepRecord, list_sweeps
from dbcli.workflows.setup.open import open_project
from dbcli.workflows.subjects.proposed_words import proposed_words


@dataclass(frozen=True)
class Step:
    """A command to type next, and why."""

    why: str
    command: str


BEGIN = Step("make a project of your own", "dreambooth init my-project")


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
    subjects, (runs, damaged) = list_subjects(layout), read_runs(layout)
    newest = _newest(runs)
    images, suites = 0, []
    if newest is not None:
        # Contact sheets lie beside the images.
        files = layout.images_dir(newest.name).glob("*.png")
        images = sum(not path.name.startswith("grid-") for path in files)
        suites = sorted(path.parent.name for path in layout.evals_dir(newest.name).glob("*/scores.json"))
    now = (run.name for run in reversed(runs) if run.state in ("created", "running"))
    training = next((name for name in now if is_held(layout.run_lock(name))), None)
    steps = next_steps(subjects, runs, training, images, suites, _words(layout, subjects), _stopped_sweep(layout))
    return ProjectStatus(
        str(layout.root),
        steps,
        settings.base,
        settings.profile,
        subjects,
        runs,
        training,
        None if newest is None else newest.name,
        images,
        suites,
        damaged_subjects(layout) + damaged,
    )


def next_steps(
    subjects: Sequence[Subject],
    runs: Sequence[RunRecord],
    training: str | None,
    images: int,
    suites: Sequence[str],
    words: Mapping[str, str],
    sweep: SweepRecord | None = None,
) -> list[Step]:
    """What to type next, the best first; `images` and `suites` are those of the run that commands take by themselves.

    `words` are the identifiers proposed for the subjects that have none; `sweep` is the newest that was stopped.
    """
    if training is not None:
        return [Step(f"{training} is training now", f"dreambooth runs show {training}")]
    if not subjects and not runs:
        return [Step("add three to six photos", "dreambooth add-subject")]
    steps = _resuming(runs[-1] if runs else None, sweep)
    learnt = {subject.name for run in runs for subject in run.subjects}
    teach = [_teach(subject, words) for subject in subjects if not subject.names & learnt]
    run = _newest(runs)
    if run is None:
        return steps + teach
    name = run.subjects[0].name if run.subjects else "subject"
    generate = Step(f"generate with {run.name}", f'dreambooth generate "a {{{name}}} in space" --grid')
    if not images:
        return [*steps, generate, *teach]
    if not suites:
        return [*steps, Step("measure how well it was learnt", f"dreambooth eval --run {run.number} --grid"), *teach]
    return [*steps, *teach, *_exporting(run), generate]


def _exporting(run: RunRecord) -> list[Step]:
    """How to take a run elsewhere, in a format that its kind has; nothing for a T-LoRA, which cannot be exported."""
    lora = run.profile.get("lora", {}) if run.method == "lora" else {}
    if lora.get("least_rank"):
        return []
    # diffusers' layout has no place for products.
    of_adapter = "lora" if lora.get("kind", "lora") == "lora" else "kohya"
    target = {"full": "checkpoint", "lora": of_adapter}.get(run.method, "embedding")
    return [Step("export it for other programs", f"dreambooth export {run.number} --to {target}")]


def _newest(runs: Sequence[RunRecord]) -> RunRecord | None:
    """The run that a command takes where none is named."""
    return next(iter(newest_first(run for run in runs if run.state in FINISHED)), None)


def _resuming(newest: RunRecord | None, sweep: SweepRecord | None) -> list[Step]:
    """How to continue the newest run, and the sweep, that did not come to their end."""
    steps = []
    # A run of a sweep is continued by the sweep, which also scores it and makes the runs after it.
    if newest is not None and newest.state in UNFINISHED and not (sweep is not None and newest.work_key):
        why = f"{newest.name} stopped at step {newest.step} of {newest.total_steps}"
        steps.append(Step(why, f"dreambooth train --resume {newest.name}"))
    if sweep is not None:
        steps.append(Step(f"{sweep.name} stopped with {sweep.finished} of {sweep.cells} cells finished", sweep.command))
    return steps


def _stopped_sweep(layout: Layout) -> SweepRecord | None:
    """The newest sweep that was stopped or killed before its end, and that nothing carries out now."""
    stopped = [one for one in list_sweeps(layout) if one.state in ("running", "interrupted")]
    return next((one for one in reversed(stopped) if not is_held(layout.sweep_lock(one.name))), None)


def teaching(layout: Layout, subject: Subject) -> str:
    """The command that teaches a subject, with the word proposed for it if it has none."""
    return _teach(subject, _words(layout, [subject])).command


def _teach(subject: Subject, words: Mapping[str, str]) -> Step:
    token = "" if subject.identifier else f" --token {words[subject.name]}"
    return Step(f"teach the base {subject.name}", f"dreambooth train --subject {subject.name}{token}")


def _words(layout: Layout, subjects: Sequence[Subject]) -> dict[str, str]:
    return {one.name: proposed_words(layout, one)[0] for one in subjects if one.identifier is None}
