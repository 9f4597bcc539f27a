"""Probes in training: checkpoints are drawn with and scored on the way, and the best of them becomes the result.

Probing changes no weight: everything it draws has noise of its own, averages are put in and taken out again exactly,
and what it settles is written into the run, so that a resumed run goes on as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import DreamboothError, Interrupted, JudgeMissing
from dbcli.project.files.atomic import write_bytes
from dbcli.project.files.layout import Layout
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
from dbcli.project.runs.run_store import RunRecord, append_event, read_events
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.models.loaded import CHECKPOINT_KEY
from dbcli.workflows.probes.schedule import Cost, plan_probes, too_dear
from dbcli.workflows.probes.score import Item, Panel, draw_items, probe_items
from dbcli.workflows.progress import Progress, Stage
from dbcli.workflows.setup.effective_settings import default_judge, judge_sources

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.trainer import Trainer
    from dbcli.metrics.choice import Choice

# Steps whose speed is asked for: the newest, as a machine may have been busy before.
TIMED_STEPS = 100


def open_probing(
    layout: Layout,
    record: RunRecord,
    base: Base,
    profile: Profile,
    progress: Progress,
    group: ProcessGroup = SINGLE,
) -> Probing | None:
    """Probing of a run with its judges loaded; None, with one line that says why, where there is none.

    All ranks generate the images of a probe, the main rank has the judges. Raises JudgeMissing where probes, or
    stopping by them, were asked for and the judges are not on this machine.
    """
    own = _opened(layout, record, base, profile, progress, group) if group.is_main else None
    found = group.gather(None if own is None else (own.items, own.record))[0]
    if own is not None or found is None:
        return own
    return Probing(layout, record, base, profile, progress, None, *found, 0.0, group)


def _opened(
    layout: Layout, record: RunRecord, base: Base, profile: Profile, progress: Progress, group: ProcessGroup
) -> Probing | None:
    plan = _plan(layout, record, profile)
    began = time.perf_counter()
    reason = plan.why if not plan.steps else None
    panel = None
    if plan.steps:
        try:
            panel = _panel(layout, record, profile, str(base.unet.device))
        except JudgeMissing as error:
            reason = f"the judges are not on this machine. {error.message}"
            if _asked_for(profile):
                raise JudgeMissing(f"Probes were asked for, and {reason}", hint=error.hint) from error
        except DreamboothError as error:
            if _asked_for(profile):
                raise
            reason = f"the judges cannot be used. {error.message}"
    if panel is None:
        record.probing = {"line": f"probes OFF: {reason}"}
        progress.note(record.probing["line"])
        return None
    items = probe_items(record, profile, base, plan.seeds)
    found = load_probes(layout, record.name) or ProbeRecord(plan=plan)
    found.judges = panel.judges.describe()
    loading = time.perf_counter() - began
    found.loading_seconds = round(found.loading_seconds + loading, 3)
    known = [value for value in panel.real.values() if value is not None]
    found.real = fmean(known) if known else None
    save_probes(layout, record.name, found)
    places = ", ".join(str(step) for step in plan.steps[:6]) + (", …" if len(plan.steps) > 6 else "")
    progress.note(f"probes ON: after steps {places}, {len(items)} pictures each ({plan.why})")
    return Probing(layout, record, base, profile, progress, panel, items, found, loading, group)


def _plan(layout: Layout, record: RunRecord, profile: Profile) -> ProbePlan:
    """The plan a run began with, else a new one."""
    if profile.probe.judge == "off":
        return ProbePlan(why="switched off (probe.judge=off)")
    before = load_probes(layout, record.name)
    return plan_of(record, profile) if before is None else before.plan


def plan_of(record: RunRecord, profile: Profile) -> ProbePlan:
    """The probes that a run's settings ask for."""
    classes = len({subject.class_noun for subject in record.shown})
    return plan_probes(profile, subjects=len(record.shown), classes=classes)


def _panel(layout: Layout, record: RunRecord, profile: Profile, device: str) -> Panel:
    from dbcli.metrics.judges.loading import load_judges

    name = default_judge(layout) if profile.probe.judge == "auto" else profile.probe.judge
    # Never fetched here: a training that begins with a download of judges is not what was asked for.
    return Panel(layout, record, load_judges(name, sources=judge_sources(layout), offline=True, device=device))


def _asked_for(profile: Profile) -> bool:
    probe = profile.probe
    return probe.judge != "auto" or probe.stop == "auto" or probe.every is not None


@dataclass
class Probing:
    """The probes of one run; `seconds` is what they took in this process, loading the judges included."""

    layout: Layout
    run: RunRecord
    base: Base
    profile: Profile
    progress: Progress
    panel: Panel | None
    items: list[Item]
    record: ProbeRecord
    seconds: float
    group: ProcessGroup = SINGLE

    def __post_init__(self) -> None:
        self._loading = self.seconds

    def ends_at(self, step: int) -> bool:
        """Whether `stop: auto` ends the run after `step`."""
        return self.record.stopped_at is not None and step >= self.record.stopped_at

    def is_due(self, step: int) -> bool:
        """Whether a probe is planned after `step` and was neither made nor left out."""
        return step in self.record.plan.steps and not self.record.settled(step)

    def after_step(self, trainer: Trainer, stage: Stage, should_stop: Callable[[], bool]) -> None:
        """Probes the checkpoint that the trainer stands at, if that is planned; left out once a signal came.

        Called by all ranks.
        """
        step = trainer.done
        if not self.group.on_main(lambda: self._begins(step)):
            return
        try:
            made = attempted(
                f"The probe of step {step}", self.progress, lambda: self._made(trainer, stage, should_stop)
            )
        except Interrupted:
            return
        if not self.group.is_main:
            return
        if made is None:
            self._leave_out(step, "it failed")
            return
        stage.measure(self.run.name, step, {"fidelity": made.fidelity, "editability": made.editability})
        self._settle_stop(step)

    def _begins(self, step: int) -> bool:
        """Whether a probe is made after `step`; one that would take too long is left out."""
        if not self.is_due(step):
            self._settle_stop(step)  # a kill may have come between the probe and this
            return False
        reason = self._too_dear(step)
        if reason is not None:
            self._leave_out(step, reason)
            self.progress.note(f"probe after step {step} left out: {reason}")
        return reason is None

    def _made(self, trainer: Trainer, stage: Stage, should_stop: Callable[[], bool]) -> ProbeEntry:
        from dbcli.diffusion.training.state_files import as_result

        began, step = time.perf_counter(), trainer.done
        with as_result(trainer):
            images = draw_items(
                self.base,
                self.items,
                batch_size=self.profile.draw.batch_size,
                on_image=lambda count: stage.tell(f"probe after step {step}: picture {count}"),
                should_stop=should_stop,
                on_note=stage.tell,
                group=self.group,
            )

        def scored_and_kept() -> ProbeEntry:
            entry = self._scored(step, images, began)
            self._keep(trainer, entry)
            return entry

        return self.group.on_main(scored_and_kept)

    def _leave_out(self, step: int, reason: str) -> None:
        self.record.skipped.append(SkippedProbe(step=step, why=reason))
        save_probes(self.layout, self.run.name, self.record)
        self._event("probe left out", step=step, why=reason)

    def rolled_back(self, step: int) -> None:
        """Steps after `step` will be made anew at another rate: what was measured of them no longer holds."""
        self.record.forget_after(step)
        self.record.stopped_at = None
        save_probes(self.layout, self.run.name, self.record)
        drop_weights(self.layout, self.run.name, but=[one.step for one in self.record.probes])

    def account(self) -> None:
        """Books this process's probing as a phase of its own; its part inside the loop is no training time."""
        timings = self.run.timings
        in_loop = self.seconds - self._loading
        timings["probe"] = round(timings.get("probe", 0.0) + self.seconds, 3)
        timings["train"] = round(timings["train"] - in_loop, 3)

    def settle(self, trainer: Trainer) -> None:
        """Chooses the checkpoint that becomes the result, puts its weights into the model, and says so."""
        last = trainer.done
        chosen, rule = self._choice(last)
        if chosen != last:
            from dbcli.diffusion.training.state_files import WEIGHTS_FILE, load_result

            folder = kept_weights(self.layout, self.run.name, chosen)
            assert folder is not None  # _choice picks only among those that are there
            load_result(trainer.trainable.tensors, folder / WEIGHTS_FILE)
        self.record.chosen, self.record.rule = chosen, rule
        save_probes(self.layout, self.run.name, self.record)
        self.run.probing = self._summary(chosen, last)
        self._event("checkpoint chosen", step=chosen, last=last, rule=rule)
        self.progress.note(self.run.probing["line"])

    def close(self) -> None:
        """Draws the chart, and removes the weights that were kept for the choice: the result is on the disk."""
        from dbcli.workflows.evaluation.report import probe_curve

        drop_weights(self.layout, self.run.name, but=())
        if self.record.probes:
            chart = self.layout.probes_dir(self.run.name) / "chart.png"
            attempted("The chart of the probes", self.progress, lambda: write_bytes(chart, probe_curve(self.record)))

    def _scored(self, step: int, images: Sequence[Image.Image], began: float) -> ProbeEntry:
        assert self.panel is not None  # the main rank has one
        found = self.panel.score(self.items, images)
        for index, (image, item) in enumerate(zip(images, self.items, strict=True)):
            path = probe_image(self.layout, self.run.name, step, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            recipe = item.recipe.model_copy(update={"extras": {**item.recipe.extras, CHECKPOINT_KEY: step}})
            save_png(path, image, recipe)
        return ProbeEntry(
            step=step,
            fidelity=fmean(found.fidelities),
            editability=fmean(found.editabilities),
            preservation=found.preservation,
            copying=found.copying,
            seconds=round(time.perf_counter() - began, 3),
            fidelities=found.fidelities,
            editabilities=found.editabilities,
        )

    def _keep(self, trainer: Trainer, entry: ProbeEntry) -> None:
        """Weights first, then the record that counts on them, then the weights that nothing needs any longer."""
        from dbcli.diffusion.training.state_files import result_tensors, write_result

        began, name = time.perf_counter(), self.run.name
        self.record.probes.append(entry)
        front = self._pick().front
        # The last step's own weights need no keeping: the run's last checkpoint holds them.
        is_last = entry.step == self.profile.train.steps
        if entry.step in front and not is_last and self.profile.probe.keep == "best":
            tensors = result_tensors(trainer)
            size = sum(tensor.nbytes for tensor in tensors.values())
            keep_weights(self.layout, name, entry.step, lambda folder: write_result(folder, tensors), needed_bytes=size)
        entry.seconds = round(entry.seconds + time.perf_counter() - began, 3)
        self.seconds += entry.seconds
        save_probes(self.layout, name, self.record)
        # Beaten on both scores once, a checkpoint is never chosen again.
        drop_weights(self.layout, name, but=front)
        scores = {key: getattr(entry, key) for key in ("fidelity", "editability", "preservation", "copying", "seconds")}
        self._event("probe", step=entry.step, **scores)
        self._tell(entry)

    def _tell(self, entry: ProbeEntry) -> None:
        real = "" if self.record.real is None else f" (photos {self.record.real:.3f})"
        # A note of the best would promise a choice that `keep: last` does not make.
        is_choosing = len(self.record.probes) > 1 and self.profile.probe.keep == "best"
        words = [
            f"probe after step {entry.step}: fidelity {entry.fidelity:.3f}{real}",
            f"editability {entry.editability:.3f}",
            "copies the photos" if entry.copying else "",
            f"best so far: step {self._pick().step}" if is_choosing else "",
            f"{entry.seconds:.1f} s",
        ]
        self.progress.note(" · ".join(word for word in words if word))

    def _pick(self, steps: list[int] | None = None) -> Choice:
        from dbcli.metrics.choice import Probe, paired_noise, pick_checkpoint

        entries = [one for one in self.record.probes if steps is None or one.step in steps]
        noise = paired_noise([one.fidelities for one in entries]), paired_noise([one.editabilities for one in entries])
        return pick_checkpoint(
            [Probe(one.step, one.fidelity, one.editability, one.copying) for one in entries], noise=noise
        )

    def _choice(self, last: int) -> tuple[int, str]:
        """The step to take and the rule by which."""
        measured = [one.step for one in self.record.probes]
        if self.profile.probe.keep == "last":
            return last, "the last checkpoint, as asked for"
        if last not in measured or len(measured) < 2:
            return last, "the last checkpoint: too few were measured to choose"
        while True:
            choice = self._pick(measured)
            if choice.step == last or kept_weights(self.layout, self.run.name, choice.step) is not None:
                return choice.step, choice.rule
            self.progress.warn(f"The weights of step {choice.step} are gone or damaged; another checkpoint is taken.")
            measured.remove(choice.step)

    def _summary(self, chosen: int, last: int) -> dict[str, Any]:
        spent = round(self.record.loading_seconds + sum(one.seconds for one in self.record.probes), 3)
        of_steps = median(self._speed()) * last if self._speed() else 0.0
        share = spent / of_steps if of_steps else None
        line = f"the result is the checkpoint of step {chosen}"
        if chosen != last:
            line += f", the best of {len(self.record.probes)} probes; the last is kept: --checkpoint {last}"
        if self.record.skipped:
            steps = ", ".join(str(one.step) for one in self.record.skipped)
            line += f"; {_probes(len(self.record.skipped))} left out to keep to the budget (step {steps})"
        cost = "" if share is None else f"; probing took {spent:.1f} s, {share:.0%} of the steps' time"
        return {"line": line + cost, "chosen_step": chosen, "last_step": last, "seconds": spent, "share": share}

    def _settle_stop(self, step: int) -> None:
        from dbcli.metrics.choice import Probe, should_stop

        probe = self.profile.probe
        measured = any(one.step == step for one in self.record.probes)
        if probe.stop != "auto" or not measured or self.ends_at(step) or step >= self.profile.train.steps:
            return
        probes = [Probe(one.step, one.fidelity, one.editability, one.copying)
                  for one in self.record.probes if one.step <= step]  # fmt: skip
        if should_stop(probes, patience=probe.patience, margin=probe.margin):
            self.record.stopped_at = step
            save_probes(self.layout, self.run.name, self.record)
            self._event("stopped by probes", step=step, patience=probe.patience, margin=probe.margin)
            self.progress.note(
                f"Training ends at step {step}: neither score has risen by {probe.margin:g} in {probe.patience} probes."
            )

    def _too_dear(self, step: int) -> str | None:
        if self.profile.probe.every is not None:
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
            budget=self.profile.probe.budget,
        )

    def _speed(self) -> list[float]:
        """Seconds of the newest steps, in whichever process they were made."""
        events = read_events(self.layout, self.run.name)
        return [one["seconds"] for one in events if "loss" in one and one.get("seconds")][-TIMED_STEPS:]

    def _event(self, what: str, **facts: Any) -> None:
        append_event(self.layout, self.run.name, {"event": what, **facts})


def _probes(count: int) -> str:
    return f"{count} probe{'' if count == 1 else 's'}"
