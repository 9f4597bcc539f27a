"""Probes in training: checkpoints generate images that are scored, and the best of them becomes the result.

Probing changes no weight: everything it generates has noise of its own, averages are put in and taken out again
exactly, and what it settles is written into the run, so that a resumed run goes on as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal

from dbcli.counts import counted
from dbcli.errors import DreamboothError, Interrupted, JudgeMissing
from dbcli.project.files.atomic import write_bytes
from dbcli.project.images.recipes import save_png
from dbcli.project.runs.probe_files import (
    ProbeEntry,
    ProbePlan,
    ProbeRecord,
    SkippedProbe,
    drop_weights,
    keep_weights,
    kept_weights,
    load_probes,
    probe_image,
    save_probes,
)
from dbcli.project.runs.run_store import read_events
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.models.loaded import CHECKPOINT_KEY
from dbcli.workflows.probes.held_out import held_out_loss
from dbcli.workflows.probes.schedule import Cost, plan_of, too_dear
from dbcli.workflows.probes.score import Item, Panel, generate_items, open_panel, probe_items
from dbcli.workflows.progress import Stage
from dbcli.workflows.run_context import RunContext

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.trainer import Trainer
    from dbcli.metrics.choice import Choice, Probe

# Steps whose speed is asked for: the newest, as a machine may have been busy before.
TIMED_STEPS = 100
# What became of planned probes that have no scores.
WITHOUT_SCORES = {
    "budget": "skipped to stay within the budget",
    "failure": "failed",
    "judges": "set aside, scored by another edition of the judges",
}


def open_probing(run: RunContext, base: Base) -> Probing | None:
    """Probing of a run with its judges loaded; None, with one line that says why, where there is none.

    All ranks generate the images of a probe, the main rank has the judges. Raises JudgeMissing where probes, or
    stopping by them, were asked for and the judges are not on this machine.
    """
    own = _opened(run, base) if run.group.is_main else None
    found: tuple[list[Item], ProbeRecord] | None
    found = run.group.gather(None if own is None else (own.items, own.record))[0]
    return own if own is not None or found is None else Probing(run, base, None, found[0], found[1], 0.0)


def _opened(run: RunContext, base: Base) -> Probing | None:
    plan, began = _plan(run), time.perf_counter()
    reason, panel = None if plan.steps else plan.why, None
    if plan.steps:
        try:
            panel = open_panel(run)
        except JudgeMissing as error:
            reason = f"the judges are not on this machine. {error.message}"
            if _asked_for(run.profile):
                raise JudgeMissing(f"Probes were requested, but {reason}", hint=error.hint) from error
        except DreamboothError as error:
            if _asked_for(run.profile):
                raise
            reason = f"the judges cannot be used. {error.message}"
    if panel is None:
        run.record.probing = {"line": f"probes OFF: {reason}"}
        run.progress.note(run.record.probing["line"])
        return None
    items = probe_items(run, base, plan.seeds)
    record = load_probes(run.layout, run.name) or ProbeRecord(plan=plan)
    lost = record.forget_other_judges(panel.judges.describe())
    if lost:
        steps = ", ".join(map(str, lost))
        run.progress.note(f"Another edition of the judges scored the probes of step {steps}: they are left out.")
    record.judges = panel.judges.describe()
    seconds = time.perf_counter() - began
    record.loading_seconds = round(record.loading_seconds + seconds, 3)
    known = [value for value in panel.real.values() if value is not None]
    record.real = fmean(known) if known else None
    save_probes(run.layout, run.name, record)
    places = ", ".join(str(step) for step in plan.steps[:6]) + (", …" if len(plan.steps) > 6 else "")
    run.progress.note(f"probes ON: after steps {places}, {counted(len(items), 'image')} each ({plan.why})")
    return Probing(run, base, panel, items, record, seconds)


def _plan(run: RunContext) -> ProbePlan:
    """The plan a run began with, else a new one."""
    if run.profile.probe.judge == "off":
        return ProbePlan(why="switched off (probe.judge=off)")
    before = load_probes(run.layout, run.name)
    return plan_of(run.record, run.profile) if before is None else before.plan


def _asked_for(profile: Profile) -> bool:
    probe = profile.probe
    return probe.judge != "auto" or probe.stop == "auto" or probe.every is not None


@dataclass
class Probing:
    """The probes of one run; `seconds` is what they took in this process, loading the judges included.

    All ranks call `after_step`, `rolled_back` and `account`; the main rank alone decides, scores and writes.
    """

    run: RunContext
    base: Base
    panel: Panel | None
    items: list[Item]
    record: ProbeRecord
    seconds: float

    def __post_init__(self) -> None:
        self._loading = self.seconds

    def ends_at(self, step: int) -> bool:
        """Whether `stop: auto` ends the run after `step`."""
        return self.record.stopped_at is not None and step >= self.record.stopped_at

    def is_due(self, step: int) -> bool:
        """Whether a probe is planned after `step` and was neither made nor left out."""
        return step in self.record.plan.steps and not self.record.settled(step)

    def after_step(self, trainer: Trainer, stage: Stage) -> None:
        """Probes the checkpoint that the trainer stands at, if that is planned; left out once a signal came."""
        step = trainer.done
        if not self.run.group.on_main(lambda: self._begins(step)):
            return
        try:
            made = attempted(f"The probe of step {step}", self.run.progress, lambda: self._made(trainer, stage))
        except Interrupted:
            return
        if not self.run.group.is_main:
            return
        if made is None:
            self._leave_out(step, "it failed", "failure")
            return
        figures = made.model_dump(include={"fidelity", "editability", "beyond_class", "identified", "scene"})
        stage.measure(self.run.name, step, {name: value for name, value in figures.items() if value is not None})
        self._settle_stop(step)

    def rolled_back(self, step: int) -> None:
        """Steps after `step` will be made anew at another rate: what was measured of them no longer holds."""
        if self.run.group.is_main:
            self.record.forget_after(step)
            self.record.stopped_at = None
            self._save()
            drop_weights(self.run.layout, self.run.name, but=[one.step for one in self.record.probes])

    def account(self) -> None:
        """Books this process's probing as a phase of its own; its part inside the loop is no training time."""
        if self.run.group.is_main:
            timings, in_loop = self.run.record.timings, self.seconds - self._loading
            timings["probe"] = round(timings.get("probe", 0.0) + self.seconds, 3)
            timings["train"] = round(timings["train"] - in_loop, 3)

    def settle(self, trainer: Trainer) -> None:
        """Chooses the checkpoint that becomes the result, puts its weights into the model, and says so."""
        last = trainer.done
        chosen, rule = self._choice(last)
        if chosen != last:
            from dbcli.diffusion.training.state_files import WEIGHTS_FILE, load_result

            folder = kept_weights(self.run.layout, self.run.name, chosen)
            assert folder is not None  # _choice picks only among those that are there
            load_result(trainer.trainable, folder / WEIGHTS_FILE)
        self.record.chosen, self.record.rule = chosen, rule
        self._save()
        self.run.record.probing = self._summary(chosen, last)
        self.run.event("checkpoint chosen", {"step": chosen, "last": last, "rule": rule})
        self.run.progress.note(self.run.record.probing["line"])

    def close(self) -> None:
        """Draws the chart, and removes the weights that were kept for the choice: the result is on the disk."""
        from dbcli.workflows.evaluation.report import probe_curve

        drop_weights(self.run.layout, self.run.name, but=())
        if self.record.probes:
            chart = self.run.layout.probes_dir(self.run.name) / "chart.png"
            attempted(
                "The chart of the probes", self.run.progress, lambda: write_bytes(chart, probe_curve(self.record))
            )

    def _begins(self, step: int) -> bool:
        """Whether a probe is made after `step`; one that would take too long is left out."""
        if not self.is_due(step):
            self._settle_stop(step)  # a kill may have come between the probe and this
            return False
        reason = self._too_dear(step)
        if reason is not None:
            self._leave_out(step, reason)
            self.run.progress.note(f"probe after step {step} left out: {reason}")
        return reason is None

    def _made(self, trainer: Trainer, stage: Stage) -> ProbeEntry:
        from dbcli.diffusion.training.state_files import as_result

        began = time.perf_counter()
        with as_result(trainer):
            images = generate_items(self.run, self.base, self.items, stage, f"probe after step {trainer.done}")
        entry: ProbeEntry = self.run.group.on_main(partial(self._kept, trainer, images, began))
        return entry

    def _kept(self, trainer: Trainer, images: Sequence[Image.Image], began: float) -> ProbeEntry:
        """Scores, then weights, then the record that counts on them, then the weights that nothing needs any longer."""
        from dbcli.diffusion.training.state_files import result_tensors, write_result

        layout, name, probe = self.run.layout, self.run.name, self.run.profile.probe
        entry = self._scored(trainer.done, images)
        self.record.probes.append(entry)
        front = self._pick().front
        # The last step's own weights need no keeping: the run's last checkpoint holds them.
        if entry.step in front and entry.step != self.run.profile.train.steps and probe.keep == "best":
            tensors = result_tensors(trainer)
            size = sum(tensor.nbytes for tensor in tensors.values())
            keep_weights(layout, name, entry.step, lambda folder: write_result(folder, tensors), needed_bytes=size)
        entry.seconds = round(time.perf_counter() - began, 3)
        self.seconds += entry.seconds
        self._save()
        # Beaten on both scores once, a checkpoint is never chosen again.
        drop_weights(layout, name, but=front)
        self.run.event("probe", entry.model_dump(exclude={"fidelities", "editabilities", "images"}))
        self._tell(entry)
        return entry

    def _scored(self, step: int, images: Sequence[Image.Image]) -> ProbeEntry:
        assert self.panel is not None  # the main rank has one
        found = self.panel.score(self.items, images)
        for index, (image, item) in enumerate(zip(images, self.items, strict=True)):
            path = probe_image(self.run.layout, self.run.name, step, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            recipe = item.recipe.model_copy(update={"extras": {**item.recipe.extras, CHECKPOINT_KEY: step}})
            save_png(path, image, recipe)
        return ProbeEntry(
            step=step,
            fidelity=fmean(found.fidelities),
            editability=fmean(found.editabilities),
            preservation=found.preservation,
            beyond_class=found.beyond_class,
            identified=found.identified,
            scene=found.scene,
            copies=found.copies,
            copying=found.copying,
            held_out=held_out_loss(self.run.record, step),
            seconds=0.0,
            fidelities=found.fidelities,
            editabilities=found.editabilities,
            images=found.images,
        )

    def _leave_out(self, step: int, reason: str, cause: Literal["budget", "failure"] = "budget") -> None:
        # Scores whose weights could not be kept choose nothing.
        self.record.probes = [one for one in self.record.probes if one.step != step]
        self.record.skipped.append(SkippedProbe(step=step, why=reason, cause=cause))
        self._save()
        self.run.event("probe left out", {"step": step, "why": reason})

    def _tell(self, entry: ProbeEntry) -> None:
        real = "" if self.record.real is None else f" (photos {self.record.real:.3f})"
        # A note of the best would promise a choice that `keep: last` does not make.
        is_choosing = len(self.record.probes) > 1 and self.run.profile.probe.keep == "best"
        words = [
            f"probe after step {entry.step}: fidelity {entry.fidelity:.3f}{real}",
            f"editability {entry.editability:.3f}",
            "" if entry.identified is None else f"identified {entry.identified:.0%}",
            "" if entry.scene is None else f"scene {entry.scene:.0%}",
            "copies the photos" if entry.copying else "",
            "" if entry.held_out is None else f"held-out loss {entry.held_out:.4f}",
            f"best so far: step {self._pick().step}" if is_choosing else "",
            f"{entry.seconds:.1f} s",
        ]
        self.run.progress.note(" · ".join(word for word in words if word))

    def _pick(self, steps: list[int] | None = None) -> Choice:
        from dbcli.metrics.choice import paired_noise, pick_checkpoint

        entries = [one for one in self.record.probes if steps is None or one.step in steps]
        noise = paired_noise([one.fidelities for one in entries]), paired_noise([one.editabilities for one in entries])
        return pick_checkpoint(_measured(entries), noise=noise)

    def _choice(self, last: int) -> tuple[int, str]:
        """The step to take and the rule by which."""
        measured = [one.step for one in self.record.probes]
        if self.run.profile.probe.keep == "last":
            return last, "the last checkpoint, as requested"
        if last not in measured or len(measured) < 2:
            return last, "the last checkpoint: too few were measured to choose"
        while True:
            choice = self._pick(measured)
            if choice.step == last or kept_weights(self.run.layout, self.run.name, choice.step) is not None:
                return choice.step, choice.rule
            lost = f"The weights of step {choice.step} are gone or damaged; another checkpoint is used."
            self.run.progress.warn(lost)
            measured.remove(choice.step)

    def _summary(self, chosen: int, last: int) -> dict[str, Any]:
        spent = round(self.record.loading_seconds + sum(one.seconds for one in self.record.probes), 3)
        speed = self._speed()
        share = spent / (median(speed) * last) if speed else None
        line = f"the result is the checkpoint of step {chosen}"
        if chosen != last:
            line += f", the best of {len(self.record.probes)} probes; the last is kept: --checkpoint {last}"
        for cause, how in WITHOUT_SCORES.items():
            steps = [str(one.step) for one in self.record.skipped if one.cause == cause]
            line += f"; {counted(len(steps), 'probe')} {how} (step {', '.join(steps)})" if steps else ""
        cost = "" if share is None else f"; probing took {spent:.1f} s, {share:.0%} of the steps' time"
        return {"line": line + cost, "chosen_step": chosen, "last_step": last, "seconds": spent, "share": share}

    def _settle_stop(self, step: int) -> None:
        from dbcli.metrics.choice import should_stop

        probe, last = self.run.profile.probe, self.run.profile.train.steps
        known = any(one.step == step for one in self.record.probes)
        if probe.stop != "auto" or not known or self.ends_at(step) or step >= last:
            return
        measured = _measured([one for one in self.record.probes if one.step <= step])
        if should_stop(measured, patience=probe.patience, margin=probe.margin):
            self.record.stopped_at = step
            self._save()
            facts = {"step": step, "patience": probe.patience, "margin": probe.margin}
            self.run.event("stopped by probes", facts)
            self.run.progress.note(
                f"Training ends at step {step}: neither score has risen by {probe.margin:g} in {probe.patience} probes."
            )

    def _too_dear(self, step: int) -> str | None:
        if self.run.profile.probe.every is not None:
            return None
        made, speed = [one.seconds for one in self.record.probes], self._speed()
        return too_dear(
            Cost(
                self.record.loading_seconds + sum(made),
                fmean(made) if made else None,
                median(speed) if speed else None,
            ),
            since=max((one.step for one in self.record.probes), default=0),
            remaining=[one for one in self.record.plan.steps if one >= step and self.is_due(one)],
            budget=self.run.profile.probe.budget,
        )

    def _speed(self) -> list[float]:
        """Seconds of the newest steps, in whichever process they were made."""
        events = read_events(self.run.layout, self.run.name)
        return [one["seconds"] for one in events if "loss" in one and one.get("seconds")][-TIMED_STEPS:]

    def _save(self) -> None:
        save_probes(self.run.layout, self.run.name, self.record)


def _measured(entries: Sequence[ProbeEntry]) -> list[Probe]:
    from dbcli.metrics.choice import Probe

    return [Probe(one.step, one.fidelity, one.editability, one.copying) for one in entries]
