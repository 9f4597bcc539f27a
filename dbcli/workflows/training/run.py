"""Training: one run from its subjects to its weights, resumable from any checkpoint."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import Interrupted, Refused
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.runs.run_store import RunBase, RunRecord, save_run
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.lineage import parent_of
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.class_images.of_run import run_class_images, tell_prior
from dbcli.workflows.launch import take_devices
from dbcli.workflows.machine_use import computing
from dbcli.workflows.memory.errors import give_back, is_out_of_memory
from dbcli.workflows.memory.fallback import fall_back
from dbcli.workflows.models.trainable import make_trainable, take_over
from dbcli.workflows.probes.probes import open_probing
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.signals import StopSignal, listening
from dbcli.workflows.training.data import gather
from dbcli.workflows.training.divergence import BeginAgain
from dbcli.workflows.training.loop import build_trainer, row_plan, run_loop
from dbcli.workflows.training.plan import TrainingPlan, check_plan
from dbcli.workflows.training.resuming import anew
from dbcli.workflows.training.run_record import new_run, recorded
from dbcli.workflows.training.teacher import teacher_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


def train_run(
    layout: Layout, plan: TrainingPlan, progress: Progress, *, offline: bool, group: ProcessGroup = SINGLE
) -> RunRecord:
    """Makes or resumes the run of a plan, trains it to the end with all ranks, and returns its finished record.

    A resumed run goes on as if it had never stopped, whatever number of ranks began it.
    """
    take_devices(group, plan.profile.train.device, progress, fused_backward=plan.profile.train.fused_backward)
    check_plan(layout, plan)
    for line in plan.notes:
        progress.note(line)
    for line in plan.cautions:
        progress.warn(line)
    name = group.on_main(lambda: new_run(layout, plan) if plan.resumed is None else plan.resumed.record.name)
    with (
        hold(layout.run_lock(name), f"the run {name}") if group.is_main else nullcontext(),
        computing(f"the run {name}", progress, group),
        listening(group) as stop,
        recorded(layout, name, plan, progress, group) as record,
    ):
        profile, rate_scale = plan.profile, 1.0
        while True:
            try:
                with group.together():
                    how = {"offline": offline, "rate_scale": rate_scale}
                    _train(layout, record, plan.shown, profile, progress, stop, group, **how)
                break
            except BeginAgain as again:
                rate_scale = again.rate_scale
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                profile, rate_scale = group.on_main(partial(fall_back, layout, record, profile, error, progress)), 1.0
                record.fallbacks = group.on_main(lambda: record.fallbacks)
            give_back()
    give_back()
    return record


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
    group: ProcessGroup,
    *,
    offline: bool,
    rate_scale: float,
) -> None:
    from dbcli.diffusion.devices import device_name, keep_freed_memory, peak_memory_bytes, pick_device
    from dbcli.workflows.models.weights import save_tuned

    device, parent = pick_device(profile.train.device), parent_of(layout, record)
    with _timed(record, "load"), progress.stage("Loading the base", 1) as stage, group.main_first():
        base = load_project_base(layout, progress, offline=offline or not group.is_main, device=device)
        stage.advance()
    _check_base(record, base, group)
    _describe(record, base, device_name(device), group.size)
    if group.is_main:
        save_run(layout, record)
    resolution = profile.images.resolution or base.resolution
    stop.raise_if_stopped("Stopped before training began.")
    probing = open_probing(layout, record, base, profile, progress, group)
    with _timed(record, "class_images"):
        class_images = run_class_images(layout, base, record, profile, resolution, progress, stop, group)
    if group.is_main:
        tell_prior(layout, record, class_images, profile, progress)
    with _timed(record, "encode"):
        lesson = gather(layout, base, subjects, class_images, profile, resolution, progress, stop)
        rows = row_plan(lesson, profile, record)
        teacher = teacher_of(layout, base, lesson, rows, class_images, profile, resolution, progress, stop, group)
    stop.raise_if_stopped("Stopped before training began.")
    # Only now: class images and teacher are the base's own, whatever the run goes on from.
    lora = None if parent is None else take_over(layout, parent, base)
    trainable = make_trainable(base, profile, record.subjects, lora)
    trainer = build_trainer(base, trainable, lesson, rows, teacher, profile, group)
    # Not before: what loading and encoding freed is no step's, and goes back to the system.
    if not record.fallbacks:
        keep_freed_memory()
    with _timed(record, "train"):
        finished = run_loop(layout, record, base, trainer, profile, progress, stop, probing, rate_scale)
    if probing is not None and group.is_main:
        probing.account()
    record.peak_memory_bytes = peak_memory_bytes(device)
    if not finished:
        raise Interrupted(
            f"Stopped after step {trainer.done} of {profile.train.steps}; a checkpoint is written.",
            exit_code=stop.exit_code,
        )
    if not group.is_main:
        return
    with _timed(record, "save"):
        trainer.use_averages()
        if probing is not None:
            attempted("Choosing among the probes", progress, partial(probing.settle, trainer))
        save_tuned(layout, record, base, trainable)
    if probing is not None:
        with _timed(record, "probe"):
            attempted("Tidying up after the probes", progress, probing.close)


def _check_base(record: RunRecord, base: Base, group: ProcessGroup) -> None:
    if record.base.hash not in (None, base.hash):
        raise Refused(
            f"The run {record.name} began on another base ({record.base.name}).",
            hint=f"{anew(record)} starts a new run",
        )
    if len(set(group.gather(base.hash))) > 1:
        raise Refused(f"The base {base.name} has other weights on another machine of the launch.")


def _describe(record: RunRecord, base: Base, device: str, processes: int) -> None:
    from importlib.metadata import version

    packages = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
    record.base = RunBase(name=base.name, source=base.source, revision=base.revision, hash=base.hash)
    record.device = device if processes == 1 else f"{processes} × {device}"
    record.versions = {"python": sys.version.split()[0], **{package: version(package) for package in packages}}
