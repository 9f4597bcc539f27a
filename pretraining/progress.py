"""Training by the clock: a time budget that survives interruption, learning rates that end with it, checkpoints."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


class Budget:
    """Seconds of training, counted over all sittings; schedules follow the fraction used, not the step."""

    def __init__(self, seconds: float, used_seconds: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._started = now() - used_seconds

    @property
    def used_seconds(self) -> float:
        """Seconds used so far, in this sitting and those before it."""
        return self._now() - self._started

    @property
    def fraction(self) -> float:
        """Fraction of the budget used, in [0, 1]."""
        return min(1.0, self.used_seconds / self._seconds)


def budget_until(finish_at: str, used_seconds: float) -> Budget:
    """Return a budget that is spent at a wall-clock time (ISO 8601, UTC)."""
    deadline = datetime.fromisoformat(finish_at).replace(tzinfo=UTC)
    left = (deadline - datetime.now(UTC)).total_seconds()
    return Budget(used_seconds + max(1.0, left), used_seconds)


def falling_rate(peak: float, fraction: float, step: int, *, hold: float, warmup_steps: int) -> float:
    """Return a learning rate: linear warm-up, constant until `hold` of the budget, then linear to zero."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return peak * warm * (1.0 if fraction < hold else max(0.0, (1 - fraction) / (1 - hold)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that an interruption leaves the old one or the new one whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint written by `save_checkpoint`, or None."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


class Average:
    """Exponential moving average of a module's floating weights, with a warm-up."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.9995) -> None:
        self._decay, self._updates = decay, 0
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the module's weights."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach().float(), 1 - decay)

    def state(self) -> dict[str, Any]:
        """Return what `load` needs."""
        return {"weights": self.weights, "updates": self._updates}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.weights, self._updates = state["weights"], state["updates"]
