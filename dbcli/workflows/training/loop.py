"""The steps of a run: checkpoints, probes and previews on the way, every step on record."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dbcli.errors import Interrupted, TrainingDiverged
from dbcli.project.runs.run_store import append_event
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.memory.errors import is_out_of_memory
from dbcli.workflows.probes.held_out import HeldOut
from dbcli.workflows.probes.probes import Probing
from dbcli.workflows.progress import Stage
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.trainer import StepResult, Trainer


def run_loop(
    run: RunContext,
    base: Base,
    trainer: Trainer,
    probing: Probing | None,
    rate_scale: float,
    held_out: HeldOut | None = None,
) -> bool:
    """The steps, from the newest checkpoint on; True at the end, False after a signal, with a checkpoint written.

    The end is the last step, or where `probing` finds that nothing rises any longer. A run that has no checkpoint yet
    begins at `rate_scale` of its learning rates. All ranks make every step, the main rank writes.

    Raises TrainingDiverged or BeginAgain by the profile's policy, with the last sound checkpoint still there.
    """
    checkpoints = Checkpoints(run, trainer)
    checkpoints.begin(rate_scale)
    with run.progress.stage(f"Training {run.name}", run.profile.train.steps) as stage:
        stage.advance(trainer.done)
        after = _AfterStep(run, base, trainer, checkpoints, probing, stage, held_out)
        after.begin()
        if probing is not None:
            probing.after_step(trainer, stage)  # a kill may have come before the probe of this step
        while not (run.stop.anywhere() or run.group.on_main(after.is_over)):
            try:
                after.step(trainer.step())
            except TrainingDiverged as error:
                checkpoints.recover(error)
                after.begin()
                if probing is not None:
                    probing.rolled_back(trainer.done)
            except Exception as error:
                if run.group.is_main and is_out_of_memory(error):
                    checkpoints.rescue()
                raise
    if run.group.is_main and run.record.step != trainer.done:
        checkpoints.save()  # the signal came just after the step had asked for it, or the end came early
    is_finished: bool = run.group.on_main(after.is_over)
    return is_finished


@dataclass
class _AfterStep:
    """What follows every step: its numbers on record and on the screen, a checkpoint, a probe and a preview if due."""

    run: RunContext
    base: Base
    trainer: Trainer
    checkpoints: Checkpoints
    probing: Probing | None
    stage: Stage
    held_out: HeldOut | None = None

    def begin(self) -> None:
        """What is due where the loop takes up a run: the loss on photos that are kept back, before it knows any."""
        if self.held_out is not None:
            self.held_out.begin(self.trainer.done)
            self._measure()

    def _measure(self) -> None:
        if self.held_out is not None:
            self.run.group.on_main(partial(self.held_out.after_step, self.trainer, self.stage))

    def is_over(self) -> bool:
        """Whether no step is left to make. A probe of the last one that a signal cut short is made on a resume."""
        done: int = self.trainer.done
        steps, probing = self.run.profile.train.steps, self.probing
        if probing is None:
            return done >= steps
        return (done >= steps and not probing.is_due(done)) or probing.ends_at(done)

    def step(self, result: StepResult) -> None:
        """Called by all ranks with a step's numbers."""
        line, every = self.run.group.on_main(partial(self._keep, result)), self.run.profile.train.preview_every
        self._measure()
        if self.probing is not None:
            self.probing.after_step(self.trainer, self.stage)
            self.stage.tell(line)  # the probe's own words are over with the probe
        if self.run.group.is_main and every and result.step % every == 0:
            _preview(self.run, self.base, self.trainer)

    def _keep(self, result: StepResult) -> str:
        """Writes and shows a step, and makes a checkpoint if it is due; the line that was shown."""
        line = self._report(result)
        self.checkpoints.add(result)
        train = self.run.profile.train
        every = train.checkpoint_every
        if (every and result.step % every == 0) or result.step == train.steps or self.run.stop():
            self.checkpoints.save()
        return line

    def _report(self, result: StepResult) -> str:
        from dbcli.diffusion.devices import peak_memory_bytes

        self.run.record.loss = result.loss
        measured = {
            "loss": result.loss,
            "subject_loss": result.subject_loss,
            "prior_loss": result.prior_loss,
            "lr": result.learning_rate,
            "seconds": round(result.seconds, 4),
        }
        append_event(self.run.layout, self.run.name, {"step": result.step, **measured})
        known = {name: value for name, value in measured.items() if value is not None}
        self.stage.measure(self.run.name, result.step, known)
        prior = "" if result.prior_loss is None else f" prior {result.prior_loss:.4f}"
        memory = peak_memory_bytes(self.trainer.device) / 1e9
        line = f"loss {result.subject_loss:.4f}{prior} · {1 / result.seconds:.2f} it/s · {memory:.1f} GB"
        self.stage.advance()
        self.stage.tell(line)
        return line


def _preview(run: RunContext, base: Base, trainer: Trainer) -> None:
    """One image of each subject as the result would be now, into the run's previews; left out once a signal came."""
    from dbcli.diffusion.training.state_files import with_averages
    from dbcli.workflows.images.generated import preview

    step = trainer.done
    with suppress(Interrupted), with_averages(trainer):
        made = partial(preview, run.layout, run.record, base, run.profile, step, run.stop)
        attempted(f"The preview of step {step}", run.progress, made)
