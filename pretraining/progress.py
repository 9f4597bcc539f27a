"""Training by the clock: a time budget that survives interruption, learning rates that end with it, checkpoints."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def own_time(device: torch.device) -> Callable[[], float]:
    """Return the clock of a budget: on a processor the time this process computed, on a GPU that of the wall.

    A machine that is busy with other things then makes a training last longer, and learns no less.
    """
    return time.process_time if device.type == "cpu" else time.monotonic


class Stop:
    """Within its context: whether the process was asked to end (SIGTERM, SIGINT); a training then saves and returns."""

    def __enter__(self) -> "Stop":
        self.wanted = False
        self._before = {number: signal.signal(number, self._want) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _want(self, number: int, frame: object) -> None:
        self.wanted = True


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


def falling_rate(peak: float, fraction: float, step: int, *, hold: float, warmup_steps: int) -> float:
    """Return a learning rate: linear warm-up, constant until `hold` of the budget, then linear to zero."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return peak * warm * (1.0 if fraction < hold else max(0.0, (1 - fraction) / (1 - hold)))


def steady_rate(peak: float, left: float, step: int, *, warmup_steps: int) -> float:
    """Return a learning rate: linear warm-up, then `left` of the peak, which is 1 until a training is to end."""
    return peak * min(1.0, (step + 1) / warmup_steps) * left


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
        """Go on from a saved state, on the device that the average is on."""
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)
        self._updates = state["updates"]
