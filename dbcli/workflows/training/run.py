"""Training: one run from its subjects to its weights, resumable from any checkpoint."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from dbcli.errors import (
    DiskFull,
    DreamboothError,
    Interrupted,
    MachineError,
    OutOfMemory,
    Refused,
    TrainingDiverged,
)
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.files.names import printable
from dbcli.project.runs.run_store import (
    RunBase,
    RunRecord,
    RunState,
    RunSubject,
    append_event,
    create_run,
    load_run,
    now,
    save_run,
)
from dbcli.project.settings.cautions import cautions
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import frozen_profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.lineage import parent_of
from dbcli.project.subjects.photo_notes import masks_in_use
from dbcli.project.subjects.subject_store import Subject
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.class_images.of_run import run_class_images, tell_prior
from dbcli.workflows.machine_use import computing
from dbcli.workflows.memory.errors import give_back
from dbcli.workflows.memory.fallback import within_memory
from dbcli.workflows.models.trainable import make_trainable, take_over
from dbcli.workflows.probes.probes import open_probing
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.several import announce, check_several, company, current, tell_of_run, together
from dbcli.workflows.signals import StopSignal, listening
from dbcli.workflows.training.checkpoints import tidy_checkpoints
from dbcli.workflows.training.data import gather
from dbcli.workflows.training.divergence import BeginAgain, explain_divergence
from dbcli.workflows.training.loop import build_trainer, row_plan, run_loop
from dbcli.workflows.training.plan import TrainingPlan, check_plan
from dbcli.workflows.training.resuming import ResumePlan, anew, apply_changes, refuse_finished
from dbcli.workflows.training.teacher import teacher_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


def start_training(
    layout: Layout, plan: TrainingPlan, progress: Progress, *, offline: bool, processes: int = 1
) -> RunRecord:
    """Makes a run of a plan and carries it out to the end, on so many GPUs; returns its finished record."""
    check_several(processes, plan.profile)
    settings = load_settings(layout)
    subjects = check_plan(layout, plan)
    for line in plan.notes:
        progress.note(line)
    for line in plan.cautions:
        progress.warn(line)

    def first_record(name: str) -> RunRecord:
        return RunRecord(
            name=name,
            method=plan.profile.method,
            profile=plan.profile.model_dump(mode="json") | {"name": plan.profile_name},
            subjects=[_recorded(layout, subject, plan.profile) for subject in plan.subjects],
            base=RunBase(name=settings.base, source=settings.base, revision=settings.revision, hash=settings.base_hash),
            total_steps=plan.profile.train.steps,
            allow_collision=plan.allow_collision,
            work_key=plan.work_key,
            command=printable(" ".join(["dreambooth", *sys.argv[1:]]), 2000),
        )

    slug = "-".join(subject.name for subject in plan.subjects)
    name = create_run(layout, slug, lambda name: _descended(layout, first_record(name), plan))
    return _carry_out(layout, name, subjects, plan.profile, progress, offline=offline, processes=processes)


def resume_training(
    layout: Layout, plan: ResumePlan, progress: Progress, *, offline: bool, processes: int = 1
) -> RunRecord:
    """Goes on with an unfinished run as if it had never stopped, but for the settings that the plan changes.

    Any number of processes may have begun it.
    """
    record = plan.record
    check_several(processes, plan.profile)
    progress.note(f"Resuming {record.name} at step {record.step} of {plan.profile.train.steps}.")
    for line in plan.lines:
        progress.note(f"From here on {line}")
    for line in cautions(plan.profile) if plan.changes else []:
        progress.warn(line)
    how: dict[str, Any] = {"offline": offline, "processes": processes, "resumed": plan}
    return _carry_out(layout, record.name, plan.subjects, plan.profile, progress, **how)


def _descended(layout: Layout, record: RunRecord, plan: TrainingPlan) -> RunRecord:
    """A new run's first record with what it has of the run it goes on from."""
    if plan.continuation is None:
        return record
    parent, shown = plan.continuation.parent, {one.name: one for one in plan.continuation.rehearsed}
    for entry in plan.continuation.earlier:
        current = _recorded(layout, shown[entry.name], plan.profile) if entry.rehearsed else entry
        seen = {"photo_hashes": current.photo_hashes, "captions": current.captions, "mask_hashes": current.mask_hashes}
        record.subjects.append(entry.model_copy(update=seen))
    record.parent, record.parent_weights = parent.name, plan.continuation.seal
    record.generation, record.base.hash = parent.generation + 1, record.base.hash or parent.base.hash
    return record


def _recorded(layout: Layout, subject: Subject, profile: Profile) -> RunSubject:
    return RunSubject(
        name=subject.name,
        class_noun=subject.class_noun,
        identifier=subject.identifier,
        photo_hashes=[photo.sha256 for photo in subject.photos],
        captions=[photo.caption for photo in subject.photos],
        mask_hashes=masks_in_use(layout, subject, profile.images.mask_loss),
    )


def _carry_out(
    layout: Layout,
    name: str,
    subjects: Sequence[Subject],
    profile: Profile,
    progress: Progress,
    *,
    offline: bool,
    processes: int,
    resumed: ResumePlan | None = None,
) -> RunRecord:
    """Holds the run, trains it, and leaves a record that says truly how it ended."""
    way_on = f"dreambooth train --resume {name}"
    with hold(layout.run_lock(name), f"the run {name}"), computing(f"the run {name}", progress), listening() as stop:
        # Read only now: until the lock was ours, another process may have brought the run to its end.
        record = load_run(layout, name)
        refuse_finished(record)
        if resumed is not None:
            apply_changes(layout, record, resumed)
        record.state, record.error = "running", None
        save_run(layout, record)
        try:
            with company(processes, profile.train.device, stop, progress):
                within_memory(
                    layout,
                    record,
                    profile,
                    progress,
                    lambda rung: _from_sound_weights(
                        partial(_train, layout, record, subjects, rung, progress, stop, offline=offline)
                    ),
                )
        except Interrupted as error:
            _close(layout, record, "interrupted", error.message)
            error.hint = way_on
            raise
        except BaseException as error:
            if isinstance(error, TrainingDiverged):
                explain_divergence(error, layout, record, frozen_profile(record.profile, record.name))
            elif isinstance(error, DiskFull):
                error.hint = f"free some space, then: {way_on}"
            elif isinstance(error, MachineError) and not isinstance(error, OutOfMemory):
                error.hint = f"{error.hint}; then: {way_on}" if error.hint else way_on
            # On a full disk even this may fail; what went wrong first is what a person has to hear.
            with suppress(OSError, MachineError):
                _close(layout, record, "failed", error.message if isinstance(error, DreamboothError) else repr(error))
            raise
        _close(layout, record, "finished", None)
        settings = frozen_profile(record.profile, record.name)
        attempted("Tidying the checkpoints", progress, partial(tidy_checkpoints, layout, record, settings, progress))
    give_back()
    return record


def _from_sound_weights(train: Callable[..., None]) -> None:
    """Trains, from the base once more as often as no checkpoint is left to go back to."""
    rate_scale = 1.0
    while True:
        try:
            return train(rate_scale=rate_scale)
        except BeginAgain as again:
            rate_scale = again.rate_scale
        give_back()


def _close(layout: Layout, record: RunRecord, state: RunState, error: str | None) -> None:
    record.state, record.error = state, error
    record.finished = now() if state == "finished" else None
    append_event(layout, record.name, {"event": state, "time": now(), "step": record.step, "error": error})
    save_run(layout, record)


@contextmanager
def _timed(record: RunRecord, phase: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    record.timings[phase] = round(record.timings.get(phase, 0.0) + time.perf_counter() - began, 3)


def _train(
    layout: Layout,
    record: RunRecord,
    subjects: Sequence[Subject],
    profile: Profile,
    progress: Progress,
    stop: StopSignal,
    *,
    offline: bool,
    rate_scale: float = 1.0,
) -> None:
    from dbcli.diffusion.devices import device_name, keep_freed_memory, peak_memory_bytes, pick_device
    from dbcli.workflows.models.weights import save_tuned

    device, parent = pick_device(profile.train.device), parent_of(layout, record)
    with _timed(record, "load"), progress.stage("Loading the base", 1) as stage:
        base = load_project_base(layout, progress, offline=offline, device=device)
        stage.advance()
    if record.base.hash not in (None, base.hash):
        raise Refused(
            f"The run {record.name} began on another base ({record.base.name}).",
            hint=f"{anew(record)} starts a new run",
        )
    _describe(record, base, device_name(device))
    save_run(layout, record)
    tell_of_run(layout, record, base.hash, profile, subjects)
    resolution = profile.images.resolution or base.resolution
    stop.raise_if_stopped("Stopped before training began.")
    probing = open_probing(layout, record, base, profile, progress)
    with _timed(record, "class_images"):
        class_images = run_class_images(layout, base, record, profile, resolution, progress, stop)
    tell_prior(layout, record, class_images, profile, progress)
    with _timed(record, "encode"):
        announce("gather", class_images=[None if one is None else one.to_plain() for one in class_images])
        lesson = gather(layout, base, subjects, class_images, profile, resolution, progress, stop)
        rows = row_plan(lesson, profile, record)
        teacher = teacher_of(layout, base, lesson, rows, class_images, profile, resolution, progress, stop)
    stop.raise_if_stopped("Stopped before training began.")
    with together("build"):
        # Only now: class images and teacher are the base's own, whatever the run goes on from.
        lora = None if parent is None else take_over(layout, parent, base)
        trainable = make_trainable(base, profile, record.subjects, lora)
        trainer = build_trainer(base, trainable, lesson, rows, teacher, profile, current())
    # Not before: what loading and encoding freed is no step's, and goes back to the system.
    if not record.fallbacks:
        keep_freed_memory()
    with _timed(record, "train"):
        finished = run_loop(layout, record, base, trainer, profile, progress, stop, probing, rate_scale)
    if probing is not None:
        probing.account()
    record.peak_memory_bytes = peak_memory_bytes(device)
    if not finished:
        raise Interrupted(
            f"Stopped after step {trainer.done} of {profile.train.steps}; a checkpoint is written.",
            exit_code=stop.exit_code,
        )
    with _timed(record, "save"):
        trainer.use_averages()
        if probing is not None:
            attempted("Choosing among the probes", progress, partial(probing.settle, trainer))
        save_tuned(layout, record, base, trainable)
    if probing is not None:
        with _timed(record, "probe"):
            attempted("Tidying up after the probes", progress, probing.close)


def _describe(record: RunRecord, base: Base, device: str) -> None:
    from importlib.metadata import version

    packages = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
    record.base = RunBase(name=base.name, source=base.source, revision=base.revision, hash=base.hash)
    several = current()
    record.device = device if several is None else f"{several.size} × {device}"
    record.versions = {"python": sys.version.split()[0], **{package: version(package) for package in packages}}
