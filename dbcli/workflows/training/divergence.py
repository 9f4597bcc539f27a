"""A run whose loss or weights are no longer finite: how far back its weights were good, and what to type next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dbcli.errors import TrainingDiverged
from dbcli.project.files.layout import Layout
from dbcli.project.runs.checkpoints import checkpoint_steps
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.combinations import LEAST_FACTOR
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import load_profile
from dbcli.workflows.setup.effective_settings import default_profile

if TYPE_CHECKING:
    from dbcli.diffusion.training.trainer import StepResult

# Noise, velocity and the base's own predictions have a variance of about 1, and so has the error of a model that
# predicts nothing at all. Weights ten times worse than that are no place to continue from, finite or not.
LARGEST_ERROR = 10.0
# Six halvings below the usual rate: a run that still diverges has another fault than its rate.
HALVINGS = 6


class BeginAgain(Exception):
    """No checkpoint is left to go back to: the run has to begin with the base, at `rate_scale` of its rates."""

    def __init__(self, rate_scale: float) -> None:
        super().__init__(rate_scale)
        self.rate_scale = rate_scale


def error_of(result: StepResult) -> float:
    """The larger of a step's two errors, the subject's and the class's."""
    error: float = max(result.subject_loss, result.prior_loss or 0.0)
    return error


def recorded_errors(events: Iterable[Mapping[str, Any]], until: int) -> dict[int, float]:
    """Step -> its error, for the steps up to `until` that a run's events hold; not finite, or not there, is 0."""
    return {
        event["step"]: max(event.get("subject_loss") or 0.0, event.get("prior_loss") or 0.0)
        for event in events
        if "loss" in event and event.get("step", 0) <= until
    }


def last_sound_step(errors: Mapping[int, float]) -> int:
    """The newest step whose weights a run may continue from, given each step's error.

    The error of a step is that of the weights which the step before it left.
    """
    last = step = max(errors, default=0)
    while step > 0 and errors.get(step, 0.0) > LARGEST_ERROR:
        step -= 1
    # What came after the last step of all was not seen; after any other it was an error too large.
    return step if step == last else max(0, step - 1)


def usual_rate(base: str, method: str) -> float:
    """The learning rate of the profile that ships for a base and a method."""
    return float(load_profile(default_profile(base, method))["train"]["learning_rate"])


def least_rate_scale(base: str, profile: Profile) -> float:
    """How far `on_divergence: lower-rate` goes down, as a share of the run's learning rate."""
    rate = profile.train.learning_rate
    if profile.train.optimizer == "prodigy":  # its rate is a factor on the one it finds
        return float(2**-HALVINGS)
    least: float = min(1.0, usual_rate(base, profile.method) / rate if rate else 1.0) / 2**HALVINGS
    return least


def explain_divergence(error: TrainingDiverged, layout: Layout, record: RunRecord, profile: Profile) -> None:
    """Adds to an error where the run would go on, and the command that goes on from there with a rate to hope for."""
    left = checkpoint_steps(layout, record.name)
    where = f"continues from the checkpoint of step {left[-1]}" if left and left[-1] else "begins again"
    error.message += f" Resumed, the run {where}."
    rate, usual = profile.train.learning_rate, usual_rate(record.base.name, profile.method)
    lower = usual if rate > usual else rate / 10
    if profile.train.optimizer == "prodigy":
        lower = max(LEAST_FACTOR, rate / 2)
    # Half precision overflows where the other two do not.
    precision = " --set train.precision=fp32" if profile.train.precision == "fp16" else ""
    error.hint = f"dreambooth train --resume {record.name} --set train.learning_rate={lower:g}{precision}"
