"""The loss on photos that a run keeps back, measured on its way and kept in its record."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dbcli.project.runs.run_store import RunRecord
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.progress import Stage
from dbcli.workflows.run_context import RunContext

if TYPE_CHECKING:
    from dbcli.diffusion.training.batches import Row
    from dbcli.diffusion.training.trainer import Trainer

# So many times a run is measured, beside the steps that are probed; eight forward passes a photo each time.
MEASUREMENTS = 10


@dataclass(frozen=True)
class HeldOutPhoto:
    """A photo that is kept back: whose it is, its number among the subject's, and what it is shown as."""

    subject: str
    number: int
    row: Row


def held_out_loss(record: RunRecord, step: int) -> float | None:
    """The loss that was measured after a step, if one was."""
    return next((float(one["loss"]) for one in record.held_out.get("losses", []) if one["step"] == step), None)


@dataclass(frozen=True)
class HeldOut:
    """The photos that a run keeps back; `probed` are steps at which its loss on them is wanted, too.

    The main rank alone measures.
    """

    run: RunContext
    photos: Sequence[HeldOutPhoto]
    probed: Collection[int] = ()

    def begin(self, step: int) -> None:
        """Takes up a run at a step: what was measured later is measured anew."""
        kept = [one for one in self._losses if one["step"] <= step]
        photos = [f"{one.subject} {one.number}" for one in self.photos]
        self.run.record.held_out = {"photos": photos, "losses": kept} | ({"line": _line(kept)} if kept else {})

    def after_step(self, trainer: Trainer, stage: Stage) -> None:
        """Measures the weights as they are now, if that is planned and not done."""
        step = trainer.done
        if self._is_due(step) and held_out_loss(self.run.record, step) is None:
            attempted(f"The held-out loss of step {step}", self.run.progress, partial(self._measure, trainer, stage))

    def tell(self) -> None:
        """Says what was found."""
        if "line" in self.run.record.held_out:
            self.run.progress.note(self.run.record.held_out["line"])

    @property
    def _losses(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run.record.held_out.get("losses", [])
        return found

    def _is_due(self, step: int) -> bool:
        steps = self.run.profile.train.steps
        return step == steps or step % -(-steps // MEASUREMENTS) == 0 or step in self.probed

    def _measure(self, trainer: Trainer, stage: Stage) -> None:
        from dbcli.diffusion.training.held_out import held_out_errors

        began, step = time.perf_counter(), trainer.done
        errors = held_out_errors(trainer, [one.row for one in self.photos])
        loss, levels = float(errors.mean()), [round(one, 6) for one in errors.mean(0).tolist()]
        losses = [*self._losses, {"step": step, "loss": loss}]
        self.run.record.held_out |= {"losses": losses, "line": _line(losses)}
        self.run.save()
        seconds = round(time.perf_counter() - began, 4)
        self.run.event("held out", {"step": step, "held_out_loss": loss, "levels": levels, "seconds": seconds})
        stage.measure(self.run.name, step, {"held_out_loss": loss})


def _line(losses: Sequence[dict[str, Any]]) -> str:
    """The last loss, the first and the lowest, in words."""
    first, last, least = losses[0], losses[-1], min(losses, key=lambda one: float(one["loss"]))
    line = f"held-out loss {last['loss']:.4f} at step {last['step']}"
    if last["step"]:
        line += f"; {first['loss']:.4f} " + ("before training" if not first["step"] else f"at step {first['step']}")
    return line + (f", lowest {least['loss']:.4f} at step {least['step']}" if least not in (first, last) else "")
