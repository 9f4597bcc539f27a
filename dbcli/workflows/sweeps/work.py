"""One piece of a sweep's work, on whichever machine: a run made or gone on with, a cell drawn and scored."""

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.errors import DreamboothError, Interrupted
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.runs.run_store import load_run
from dbcli.project.subjects.subject_store import load_subject
from dbcli.project.sweeps.sweep_records import CellRecord, load_cell, runs_by_key, save_cell
from dbcli.workflows.memory.errors import is_out_of_memory
from dbcli.workflows.progress import Progress
from dbcli.workflows.sweeps.units import GENERATE_ONLY, ScoreUnit, TrainUnit, Unit

# A process on a machine that was just lost may hold its lock for a moment after another took over its work.
LOCK_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended: whether there was anything to do, and the fault if it failed."""

    key: str
    title: str
    was_to_do: bool
    seconds: float = 0.0
    error: dict[str, Any] | None = None


def carry_out(root: Path, unit: Unit, before: Outcome | None, progress: Progress, *, offline: bool) -> Outcome:
    """Does one unit, or nothing where it is done already; a fault is the outcome's, never raised.

    `before` is the outcome of the unit this one needs. Raises Interrupted after a signal: the work goes on from its
    last checkpoint the next time.
    """
    layout, began = Layout(root), time.monotonic()
    try:
        if before is not None and before.error is not None:
            return _failed(layout, unit, before.error, was_to_do=False)
        with hold(layout.work_lock(unit.key), unit.title, wait_seconds=LOCK_WAIT_SECONDS):
            if isinstance(unit, TrainUnit):
                was_to_do = _train(layout, unit, progress, offline=offline)
            else:
                was_to_do = _score(layout, unit, progress, offline=offline)
        return Outcome(unit.key, unit.title, was_to_do, time.monotonic() - began)
    except Interrupted:
        raise
    except Exception as error:
        return _failed(layout, unit, _fault_of(error))


def give_up(root: Path, unit: Unit, error: Exception) -> Outcome:
    """Records that a unit was lost: its engine could not bring it to any end."""
    return _failed(Layout(root), unit, _fault_of(error))


def _fault_of(error: Exception) -> dict[str, Any]:
    """An error as it is recorded: message, hint, exit code, and the traceback of what nobody expected."""
    if isinstance(error, DreamboothError):
        return {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    is_machine = isinstance(error, OSError) or is_out_of_memory(error)
    return {
        "message": f"{type(error).__name__}: {error}",
        "hint": None,
        "exit_code": 5 if is_machine else 1,
        "traceback": "".join(traceback.format_exception(error)),
    }


def _failed(layout: Layout, unit: Unit, error: dict[str, Any], *, was_to_do: bool = True) -> Outcome:
    if isinstance(unit, ScoreUnit):
        save_cell(layout, CellRecord(key=unit.key, state="failed", error=error))
    return Outcome(unit.key, unit.title, was_to_do, error=error)


def _train(layout: Layout, unit: TrainUnit, progress: Progress, *, offline: bool) -> bool:
    from dbcli.workflows.training.continuation import check_settings, continuation, parent_run
    from dbcli.workflows.training.plan import TrainingPlan
    from dbcli.workflows.training.resuming import plan_resume
    from dbcli.workflows.training.run import train_run

    run = runs_by_key(layout).get(unit.key)
    if run is not None and run.state == "finished" and layout.weights_dir(run.name).is_dir():
        return False
    if run is not None and run.state != "finished":
        train_run(layout, plan_resume(layout, run.name), progress, offline=offline)
        return True
    subjects = [load_subject(layout, name) for name, _ in unit.words]
    for subject, (_, word) in zip(subjects, unit.words, strict=True):
        subject.identifier = word  # in this sweep; the project's record stays as it is
    kept, allowed = None, unit.allow_collision
    if unit.after is not None:
        parent = parent_run(layout, runs_by_key(layout)[unit.after].name)
        check_settings(layout, parent, unit.profile)
        kept = continuation(layout, parent, subjects, unit.profile)
        allowed = allowed or parent.allow_collision
    plan = TrainingPlan(subjects, unit.profile_name, unit.profile, allowed, kept, work_key=unit.key)
    train_run(layout, plan, progress, offline=offline)
    return True


def _score(layout: Layout, unit: ScoreUnit, progress: Progress, *, offline: bool) -> bool:
    known = load_cell(layout, unit.key)
    if known is not None and known.state == "finished":
        return False
    runs = runs_by_key(layout)
    record = CellRecord(key=unit.key, state="finished", runs=[runs[key].name for key in unit.runs])
    if unit.judge == GENERATE_ONLY:
        _draw(layout, unit, record, progress, offline=offline)
    else:
        _draw_and_score(layout, unit, record, progress, offline=offline)
    save_cell(layout, record)
    return True


def _draw_and_score(layout: Layout, unit: ScoreUnit, record: CellRecord, progress: Progress, *, offline: bool) -> None:
    from dbcli.workflows.evaluation.evaluate import evaluate
    from dbcli.workflows.evaluation.interference import measure_interference
    from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions
    from dbcli.workflows.generation.request import RunSelection

    run = record.runs[-1]
    faces = None if unit.faces else False
    options = ScoringOptions(unit.suites, judge=unit.judge, count=unit.count, seed=unit.seed, faces=faces)
    for found in evaluate(layout, EvaluateRequest(run, options), progress, offline=offline):
        record.scores.append(found.scores)
        folder = found.scores_file.parent / "images"
        record.pictures += [
            {
                "subject": subject["name"],
                "label": prompt["label"],
                "files": [layout.shown(folder / name) for name in prompt["images"]],
            }
            for subject in found.scores["subjects"]
            for prompt in subject["prompts"]
        ]
    if unit.interference:
        selection = RunSelection((run,), allow_collision=True)
        options = ScoringOptions(judge=unit.judge, count=unit.count, seed=unit.seed)
        record.interference = measure_interference(layout, selection, options, progress, offline=offline).report


def _draw(layout: Layout, unit: ScoreUnit, record: CellRecord, progress: Progress, *, offline: bool) -> None:
    """Draws what would be scored, for a person's eye only."""
    from dbcli.metrics.suites import load_suite
    from dbcli.workflows.evaluation.subject_prompts import label_of, subject_prompts, subject_texts
    from dbcli.workflows.generation.generate import generate
    from dbcli.workflows.generation.request import GenerateRequest, RunSelection
    from dbcli.workflows.images.generated import words_of

    run = record.runs[-1]
    words = words_of(load_run(layout, run))
    wanted = [
        (name, label_of(prompt, words[name]), text)
        for suite in map(load_suite, unit.suites)
        for name in words
        for prompt, text in zip(subject_prompts(suite, name, words), subject_texts(suite, name, words), strict=True)
    ]
    selection, texts = RunSelection((run,), allow_collision=True), [text for _, _, text in wanted]
    request = GenerateRequest(texts, selection, {"count": unit.count}, seed=unit.seed)
    generated = generate(layout, request, progress, offline=offline)
    files = [layout.shown(image.path) for image in generated.images]
    record.pictures = [
        {"subject": name, "label": label, "files": files[start * unit.count : (start + 1) * unit.count]}
        for start, (name, label, _) in enumerate(wanted)
    ]
