"""What a piece of work costs: run on fake tensors, which have shapes and no memory, and by the speed of this device.

The operations are those that would run, so what they hold at once and what they multiply is counted, not guessed. The
speed is measured in a second on layers of the size a recipe has.
"""

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Long enough to measure, short enough to wait for.
PROBE_SECONDS = 0.25


@dataclass(frozen=True)
class PassCost:
    """What a piece of work takes beyond what was there before: bytes at its peak, multiply-adds x 2, operations."""

    peak_bytes: int
    flops: int
    operations: int


class _Counter(TorchDispatchMode):
    """Counts the bytes of every storage that operations make, until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.live = self.peak = self.flops = self.operations = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What an operation is given without one before it having made it was there before: weights, inputs.
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self._enter(leaf.untyped_storage(), size=0)
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        count = flop_registry.get(getattr(func, "_overloadpacket", None))
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._enter(leaf.untyped_storage(), size=leaf.untyped_storage().nbytes())
        return result

    def _enter(self, storage: torch.UntypedStorage, size: int) -> None:
        key = id(storage)
        if key in self._known:
            return

        def freed(_: Any) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def fake_run(work: Callable[[], Any]) -> PassCost:
    """Runs `work`, whose tensors are all fake, and says what it took."""
    with _Counter() as counter:
        work()
    return PassCost(counter.peak, counter.flops, counter.operations)


def fake_tensors() -> FakeTensorMode:
    """Inside it every tensor that is made has a device and a shape, and no memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


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
