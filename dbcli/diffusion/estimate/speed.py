"""How fast this device is, measured in a second on layers of the size a recipe has."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dbcli.diffusion.estimate.fake_run import PassCost

# Long enough to measure, short enough to wait for.
PROBE_SECONDS = 0.25


@dataclass(frozen=True)
class Speed:
    """Operations per second of a 3 x 3 convolution, forward and backward, and what one call costs by itself."""

    flops_per_second: float
    seconds_per_operation: float

    def seconds(self, cost: PassCost) -> float:
        """How long a piece of work should take; good to a factor, not to a percent."""
        return cost.flops / self.flops_per_second + cost.operations * self.seconds_per_operation


def measured_speed(device: torch.device, *, channels: int, rows: int, size: int, dtype: torch.dtype) -> Speed:
    """Times a convolution of `channels` on `[rows, channels, size, size]`, and an operation on nothing."""
    kernel = torch.zeros(channels, channels, 3, 3, device=device, dtype=dtype, requires_grad=True)
    pixels = torch.zeros(rows, channels, size, size, device=device, dtype=dtype, requires_grad=True)
    small = torch.zeros(8, device=device)

    def convolve() -> None:
        torch.autograd.backward(torch.nn.functional.conv2d(pixels, kernel, padding=1).sum())

    def touch() -> None:
        for _ in range(100):
            small.add(1)

    flops = 3 * 2 * 9 * channels * channels * rows * size * size
    return Speed(flops / _fastest(convolve, device), _fastest(touch, device) / 100)


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of several runs: whatever else the machine does can only slow one down."""
    work()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < PROBE_SECONDS:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
