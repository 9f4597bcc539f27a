"""Training: one run from its subjects to its weights, resumable from any checkpoint."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import Interrupted, Refused
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.runs.probe_files import forget_probes
from dbcli.project.runs.run_store import RunBase, RunRecord
from dbcli.project.subjects.lineage import parent_of
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.class_images.of_run import run_class_images
from dbcli.workflows.launch import take_devices
from dbcli.workflows.machine_use import computing
from dbcli.workflows.memory.amounts import rows_of
from dbcli.workflows.memory.errors import give_back, is_out_of_memory
from dbcli.workflows.memory.fallback import fall_back
from dbcli.workflows.models.trainable import start_trainable
from dbcli.workflows.probes.held_out import HeldOut
from dbcli.workflows.probes.look import is_looked_at, look
from dbcli.workflows.probes.probes import Probing, open_probing
from dbcli.workflows.progress import Progress
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.signals import listening
from dbcli.workflows.training.build import batch_sampler, build_trainer
from dbcli.workflows.training.data import encode_data
from dbcli.workflows.training.divergence import BeginAgain
from dbcli.workflows.training.loop import run_loop
from dbcli.workflows.training.plan import TrainingPlan, check_plan
from dbcli.workflows.training.resuming import anew
from dbcli.workflows.training.run_record import new_run, recorded
from dbcli.workflows.training.scenes import draw_scenes
from dbcli.workflows.training.teacher import teacher_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.trainer import Trainer

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


def train_run(
    layout: Layout, plan: TrainingPlan, progress: Progress, *, offline: bool, group: ProcessGroup = SINGLE
) -> RunRecord:
    """Makes or resumes the run of a plan, trains it to the end with all ranks, and returns its finished record.

    A resumed run goes on as if it had never stopped, whatever number of ranks began it. Where memory is full it falls
    back to a smaller recipe; where no checkpoint is left to go back to, it begins again.
    """
    take_devices(group, plan.profile.train.device, progress, fused_backward=plan.profile.train.fused_backward)
    check_plan(layout, plan)
    # Only now, as it brings torch, which no fault of the settings has to wait for.
    from dbcli.diffusion.devices import pick_device

    pick_device(plan.profile.train.device)
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
        run, rate_scale = RunContext(layout, record, plan.profile, plan.shown, progress, stop, group, offline), 1.0
        while True:
            try:
                with group.together():
                    train_once(run, rate_scale)
                break
            except BeginAgain as again:
                rate_scale = again.rate_scale
                group.on_main(lambda: forget_probes(layout, name, after=0))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                run, rate_scale = replace(run, profile=fall_back(run, error)), 1.0
            give_back()
    give_back()
    return record


def train_once(run: RunContext, rate_scale: float) -> None:
    """One attempt at a run: load, class images, encode, build, loop, save.

    Class images and the teacher's predictions are the base's own, whatever the run continues, so they come before
    anything learns. `rate_scale` is that of a run which begins again after it diverged.
    """
    from dbcli.diffusion.devices import forget_peak_memory, peak_memory_bytes, pick_device
    from dbcli.diffusion.estimate.activations import activation_bytes
    from dbcli.diffusion.training.allocator import keep_freed_memory

    record, stop = run.record, run.stop
    parent = parent_of(run.layout, record)
    forget_peak_memory(pick_device(run.profile.train.device))
    base = _load_base(run)
    stop.raise_if_stopped("Stopped before training began.")
    probing = open_probing(run, base)
    with run.timed("class_images"):
        class_images = run_class_images(run, base)
        scenes = draw_scenes(run, base)
    with run.timed("encode"):
        data = encode_data(run, base, class_images, scenes)
        batches = batch_sampler(run, data)
        teacher = teacher_of(run, base, data, batches, class_images)
    stop.raise_if_stopped("Stopped before training began.")

    trainable = start_trainable(run.layout, record, run.profile, base, parent)
    trainer = build_trainer(run, base, trainable, data, batches, teacher)
    # Not before: what loading and encoding freed is no step's, and goes back to the system.
    if not record.fallbacks:
        keep_freed_memory(activation_bytes(base, rows_of(run.profile), data.places))
    probed = () if probing is None else probing.record.plan.steps
    held_out = HeldOut(run, data.held_out, probed) if data.held_out else None
    with run.timed("train"):
        is_finished = run_loop(run, base, trainer, probing, rate_scale, held_out)
    if probing is not None:
        probing.account()
    record.peak_memory_bytes = peak_memory_bytes(trainer.device)
    if not is_finished:
        raise Interrupted(
            f"Stopped after step {trainer.done} of {run.profile.train.steps}; a checkpoint is written.",
            exit_code=stop.exit_code,
        )
    if run.group.is_main:
        if held_out is not None:
            held_out.tell()
        _save_result(run, base, trainer, probing)


def _load_base(run: RunContext) -> Base:
    """The project's base, and into the record what the run is trained on."""
    from dbcli.diffusion.devices import device_name, pick_device
    from dbcli.diffusion.precision import precision_on

    record, group, device = run.record, run.group, pick_device(run.profile.train.device)
    with run.timed("load"), run.progress.stage("Loading the base", 1) as stage, group.main_first():
        base = load_project_base(run.layout, run.progress, offline=run.offline or not group.is_main, device=device)
        stage.advance()
    if record.base.hash not in (None, base.hash):
        raise Refused(
            f"The run {record.name} started on another base ({record.base.name}).",
            hint=f"{anew(record)} starts a new run",
        )
    if len(set(group.gather(base.hash))) > 1:
        raise Refused(f"The base {base.name} has different weights on another machine of the launch.")
    record.base = RunBase(name=base.name, source=base.source, revision=base.revision, hash=base.hash)
    record.device = ("" if group.size == 1 else f"{group.size} × ") + device_name(device)
    record.precision = precision_on(run.profile.train.precision, device)
    record.versions = {"python": sys.version.split()[0], **{package: version(package) for package in PACKAGES}}
    run.save()
    return base


def _save_result(run: RunContext, base: Base, trainer: Trainer, probing: Probing | None) -> None:
    from dbcli.workflows.models.weights import save_tuned

    with run.timed("save"):
        trainer.use_averages()
        trainer.forget_optimiser()  # it is in the last checkpoint
        if probing is not None:
            attempted("Choosing among the probes", run.progress, partial(probing.settle, trainer))
        save_tuned(run.layout, run.record, base, trainer.trainable)
    if probing is None and not is_looked_at(run):
        return
    with run.timed("probe"):
        panel = None if probing is None else probing.panel
        attempted("Looking at the result", run.progress, partial(look, run, base, trainer, panel))
        if probing is not None:
            attempted("Tidying up after the probes", run.progress, probing.close)
