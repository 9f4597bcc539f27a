"""A run's checkpoints: written, found again, gone back to, and made small when the run is finished."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbcli.errors import TrainingDiverged
from dbcli.project.files.atomic import remove_folder
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import drop_files
from dbcli.project.runs.checkpoints import checkpoint_fault, checkpoints, newest_checkpoint, save_checkpoint, step_of
from dbcli.project.runs.run_store import RunRecord, read_events
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.progress import Progress
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.training.divergence import (
    LARGEST_ERROR,
    BeginAgain,
    error_of,
    last_sound_step,
    least_rate_scale,
    recorded_errors,
)

if TYPE_CHECKING:
    from dbcli.diffusion.training.trainer import StepResult, Trainer, TrainingState


@dataclass
class Checkpoints:
    """The checkpoints of a run that is training, and the errors of its steps, by which they are judged.

    The main rank writes and judges them; `load_newest` and `recover` are called by all.
    """

    run: RunContext
    trainer: Trainer
    errors: dict[int, float] = field(default_factory=dict)
    loaded: int = 0

    def begin(self, rate_scale: float) -> None:
        """Puts the trainer at the newest checkpoint, else at the start of the run, with so much of its learning rates.

        Where lower rates are tried, the beginning is a place to go back to as well.
        """
        if self.load_newest():
            self.run.event("resumed", {"step": self.trainer.done})
            return
        self.trainer.rate_scale = rate_scale
        if self.run.profile.train.on_divergence == "lower-rate":
            self.run.group.on_main(self.save)

    def save(self) -> None:
        """Makes a checkpoint of this step, if there is none, and says so in the record."""
        from dbcli.diffusion.training.state_files import write_state

        state, record = self.trainer.state(), self.run.record
        if record.changes or record.fallbacks:
            state.seen = {"changes": len(record.changes), "fallbacks": len(record.fallbacks)}
        save_checkpoint(
            self.run.layout,
            self.run.name,
            state.step,
            lambda folder: write_state(folder, state),
            keep=self.run.profile.train.keep_checkpoints,
            keep_first=self.run.profile.train.on_divergence == "lower-rate",
            needed_bytes=state.size_bytes,
        )
        self.run.record.step = state.step
        self.run.save()

    def rescue(self) -> None:
        """A checkpoint of the last whole step after the memory was full, if there is the memory for that."""
        self.trainer.optimiser.zero_grad(set_to_none=True)
        if self.trainer.is_between_steps and self.trainer.done > self.run.record.step:
            with suppress(Exception):  # the checkpoint before it stands
                self.save()

    def load_newest(self) -> bool:
        """Puts the newest sound checkpoint into the trainer; False where there is none."""
        from dbcli.diffusion.training.state_files import WEIGHTS_FILE, check_fit, read_state

        def on_damage(fault: str) -> None:
            self.run.progress.warn(f"{fault}; an earlier checkpoint is used.")

        found = self.run.group.on_main(lambda: newest_checkpoint(self.run.layout, self.run.name, on_damage))
        if found is None:
            return False
        state = read_state(found)
        way_on = f"move {self.run.layout.shown(found)} away, then: dreambooth train --resume {self.run.name}"
        check_fit(self.trainer.trainable, state.weights, found / WEIGHTS_FILE, way_on)
        self.trainer.load_state(self._as_settings_are_now(state))
        self.run.record.step = self.loaded = self.trainer.done
        self.errors = recorded_errors(read_events(self.run.layout, self.run.name), self.trainer.done)
        return True

    def add(self, result: StepResult) -> None:
        """Takes the error of a step. Raises TrainingDiverged where a lowered rate left an error as bad as before."""
        self.errors[result.step] = error_of(result)
        if self.trainer.rate_scale < 1 and self.errors[result.step] > LARGEST_ERROR:
            raise TrainingDiverged(f"The loss grew to {result.loss:.4g} at step {result.step}.")

    def recover(self, error: TrainingDiverged) -> None:
        """After a divergence: back to weights that were good, at half the rate if that is the run's policy.

        Raises the error where the run has to stop, BeginAgain where only the base is left to go back to.
        """
        self._go_back(error.message, self.run.group.on_main(lambda: self._scale_after(error)))

    def _as_settings_are_now(self, state: TrainingState) -> TrainingState:
        """The state of a checkpoint without what settings that changed after it have made meaningless."""
        later, fallbacks = self.run.record.changes, self.run.record.fallbacks
        if state.seen:
            later, fallbacks = later[state.seen["changes"] :], fallbacks[state.seen["fallbacks"] :]
        else:  # there were none, or an earlier release wrote it, which is known by its step alone
            later = [one for one in later if state.step <= one.step]
            fallbacks = [one for one in fallbacks if state.step <= one.step]
        if any("train.optimizer" in one.settings for one in later) or any(one.optimiser_is_new for one in fallbacks):
            state.optimiser = {}  # another kind of optimiser's numbers mean nothing to this one
            if state.ema and not self.trainer.averages:
                state.weights = state.ema  # what the one before had averaged would be the result
        if any("train.learning_rate" in one.settings for one in later):
            state.rate_scale = 1.0  # a rate that somebody typed is the rate
        return state

    def _drop_unsound(self, *, at_once: bool) -> None:
        """Removes the checkpoints whose weights led to a divergence; that of step 0 is the base, which stays."""
        limit = min(last_sound_step(self.errors), self.loaded - 1 if at_once else self.trainer.done)
        found = checkpoints(self.run.layout, self.run.name)
        for path in found:
            if step_of(path) > limit:
                remove_folder(path)
        left = [path for path in found if path.exists()]
        self.run.record.step = step_of(left[-1]) if left else 0

    def _scale_after(self, error: TrainingDiverged) -> float:
        """The scale of the learning rates to go on with, from a checkpoint whose weights were good."""
        at_once = self.loaded > 0 and max(self.errors, default=0) <= self.loaded
        self._drop_unsound(at_once=at_once)
        if self.run.profile.train.on_divergence != "lower-rate":
            if at_once:
                # It was written by other settings, or by a machine that failed: its weights are at fault, not these.
                return 1.0
            raise error
        scale: float = self.trainer.rate_scale / 2
        if scale < least_rate_scale(self.run.record.base.name, self.run.profile):
            raise error
        return scale

    def _go_back(self, reason: str, scale: float) -> None:
        diverged_at = self.trainer.done
        is_loaded = self.load_newest()
        step = self.trainer.done if is_loaded else 0
        rate = "" if scale == 1 else f", at {scale:g} of the learning rate"
        if self.run.group.is_main:
            self.run.progress.warn(f"{reason} Back to step {step}{rate}.")
        self.run.event("rolled back", {"from": diverged_at, "step": step, "rate_scale": scale})
        if not is_loaded:
            raise BeginAgain(scale)
        self.trainer.rate_scale = scale


def tidy_checkpoints(layout: Layout, record: RunRecord, profile: Profile, progress: Progress) -> None:
    """Takes out of a finished run's checkpoints what only resuming needs, and those that its result holds anyway."""
    from dbcli.diffusion.training.state_files import TENSOR_FILES

    if profile.train.keep_finished == "all":
        return
    kept = []
    for path in checkpoints(layout, record.name):
        step = step_of(path)
        if step in (0, record.result_step) or checkpoint_fault(path) is not None:
            remove_folder(path)
            continue
        has_averages = (path / TENSOR_FILES["ema"]).exists()
        drop_files(path, [TENSOR_FILES["optimiser"], *([TENSOR_FILES["weights"]] if has_averages else [])])
        kept.append(step)
    if kept:
        steps = ", ".join(map(str, kept))
        progress.note(f"Kept beside the result: the weights of step {steps}, for --checkpoint.")
