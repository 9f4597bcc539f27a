"""One piece of a sweep's work, on whichever machine: a run made or gone on with, a cell drawn and scored."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.errors import DreamboothError, Interrupted
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.prompts.identifiers import render_with
from dbcli.project.runs.run_store import RunRecord, load_run
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import load_subject
from dbcli.project.sweeps.sweep_records import CellRecord, load_cell, runs_by_key, save_cell
from dbcli.workflows.memory.errors import is_out_of_memory
from dbcli.workflows.progress import Progress
from dbcli.workflows.sweeps.plan import DRAW_ONLY, ScoreUnit, TrainUnit, Unit, is_finished

# A process on a machine that was just lost may hold its lock for a moment after another took over its work.
LOCK_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended: whether there was anything to do, and the fault if it failed."""

    key: str
    title: str
    is_fresh: bool
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
            return _failed(layout, unit, before.error, is_fresh=False)
        with hold(layout.work_lock(unit.key), unit.title, wait_seconds=LOCK_WAIT_SECONDS):
            if isinstance(unit, TrainUnit):
                is_fresh = _train(layout, unit, progress, offline=offline)
            else:
                is_fresh = _score(layout, unit, progress, offline=offline)
        return Outcome(unit.key, unit.title, is_fresh, time.monotonic() - began)
    except Interrupted:
        raise
    except Exception as error:
        return _failed(layout, unit, fault_of(error), is_fresh=True)


def fault_of(error: Exception) -> dict[str, Any]:
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


def give_up(root: Path, unit: Unit, error: Exception) -> Outcome:
    """Records that a unit was lost: its engine could not bring it to any end."""
    return _failed(Layout(root), unit, fault_of(error), is_fresh=True)


def _failed(layout: Layout, unit: Unit, error: dict[str, Any], *, is_fresh: bool) -> Outcome:
    if isinstance(unit, ScoreUnit):
        save_cell(layout, CellRecord(key=unit.key, state="failed", error=error))
    return Outcome(unit.key, unit.title, is_fresh, error=error)


def finished_run(layout: Layout, key: str) -> RunRecord | None:
    """The run of a key if it is finished and its weights are still there."""
    run = runs_by_key(layout).get(key)
    return run if run is not None and run.state == "finished" and layout.weights_dir(run.name).is_dir() else None


def _train(layout: Layout, unit: TrainUnit, progress: Progress, *, offline: bool) -> bool:
    from dbcli.workflows.training import continuation as continuing
    from dbcli.workflows.training.plan import TrainingPlan
    from dbcli.workflows.training.resuming import plan_resume
    from dbcli.workflows.training.run import train_run

    if finished_run(layout, unit.key) is not None:
        return False
    run = runs_by_key(layout).get(unit.key)
    if run is not None and run.state != "finished":
        train_run(layout, plan_resume(layout, run.name), progress, offline=offline)
        return True
    subjects = [_subject(layout, name, word) for name, word in unit.words]
    kept, allowed = None, unit.allow_collision
    if unit.after is not None:
        parent = continuing.parent_run(layout, runs_by_key(layout)[unit.after].name)
        continuing.check_settings(layout, parent, unit.profile)
        kept = continuing.continuation(layout, parent, subjects, unit.profile)
        allowed = allowed or parent.allow_collision
    plan = TrainingPlan(subjects, unit.profile_name, unit.profile, allowed, kept, work_key=unit.key)
    train_run(layout, plan, progress, offline=offline)
    return True


def _subject(layout: Layout, name: str, word: str) -> Subject:
    """A subject under the word that it has in this sweep; the project's record stays as it is."""
    subject = load_subject(layout, name)
    subject.identifier = word
    return subject


def _score(layout: Layout, unit: ScoreUnit, progress: Progress, *, offline: bool) -> bool:
    known = load_cell(layout, unit.key)
    if known is not None and is_finished(known):
        return False
    runs = runs_by_key(layout)
    names = [runs[key].name for key in unit.runs]
    if unit.judge == DRAW_ONLY:
        scores, pictures = [], _drawn(layout, names[-1], unit, progress, offline=offline)
    else:
        scores, pictures = _scored(layout, names[-1], unit, progress, offline=offline)
    found = _interference(layout, names[-1], unit, progress, offline=offline) if unit.interference else None
    record = CellRecord(
        key=unit.key, state="finished", runs=names, scores=scores, pictures=pictures, interference=found
    )
    save_cell(layout, record)
    return True


def _interference(layout: Layout, run: str, unit: ScoreUnit, progress: Progress, *, offline: bool) -> dict[str, Any]:
    """Whether the subjects of a cell's run stay apart; see `dreambooth eval --interference`."""
    from dbcli.workflows.evaluation.interference import measure_interference
    from dbcli.workflows.evaluation.request import ScoringOptions
    from dbcli.workflows.generation.request import RunSelection

    selection = RunSelection((run,), allow_collision=True)
    scoring = ScoringOptions(judge=unit.judge, count=unit.count, seed=unit.seed)
    return measure_interference(layout, selection, scoring, progress, offline=offline).report


def _scored(
    layout: Layout, run: str, unit: ScoreUnit, progress: Progress, *, offline: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from dbcli.workflows.evaluation.evaluate import evaluate
    from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions

    scoring = ScoringOptions(unit.suites, judge=unit.judge, count=unit.count, seed=unit.seed)
    found = evaluate(layout, EvaluateRequest(run, scoring), progress, offline=offline)
    pictures = [
        {
            "subject": subject["name"],
            "label": prompt["label"],
            "files": [layout.shown(one.scores_file.parent / "images" / name) for name in prompt["images"]],
        }
        for one in found
        for subject in one.scores["subjects"]
        for prompt in subject["prompts"]
    ]
    return [one.scores for one in found], pictures


def _drawn(layout: Layout, run: str, unit: ScoreUnit, progress: Progress, *, offline: bool) -> list[dict[str, Any]]:
    """Draws what would be scored, for a person's eye only."""
    from dbcli.metrics.suites import load_suite
    from dbcli.workflows.evaluation.evaluate import label_of
    from dbcli.workflows.generation.generate import generate
    from dbcli.workflows.generation.request import GenerateRequest, RunSelection
    from dbcli.workflows.images.generated import words_of

    words = words_of(load_run(layout, run))
    wanted = [
        (name, label_of(prompt, {name: one}), render_with(prompt.template, {name: one}))
        for suite in map(load_suite, unit.suites)
        for name, one in words.items()
        for prompt in suite.prompts_for(one.class_noun)
    ]
    selection, options = RunSelection((run,), allow_collision=True), {"count": unit.count}
    request = GenerateRequest([text for _, _, text in wanted], selection, options, unit.seed)
    generated = generate(layout, request, progress, offline=offline)
    files = [layout.shown(image.path) for image in generated.images]
    return [
        {"subject": name, "label": label, "files": files[start * unit.count : (start + 1) * unit.count]}
        for start, (name, label, _) in enumerate(wanted)
    ]
