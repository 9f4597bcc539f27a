"""Work run on fake tensors, which have shapes and no memory, to know what the real work will take.

The operations are those that would run, so what they hold at once and what they multiply is counted, not guessed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


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
