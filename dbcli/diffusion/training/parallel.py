"""Several processes that train one model: how they agree, and how their gradients become one step's.

Every process holds the whole model and takes a share of each micro-batch (shares.py). Gradients are those of the whole
batch's loss and are summed before they are clipped, so that the step is the one that a single process would have taken,
up to the order of the sums. Process 0 leads: it alone decides what comes next, tells the others by orders, and writes.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import distributed

from dbcli import errors
from dbcli.diffusion.training.shares import Share
from dbcli.errors import DreamboothError, MachineError

# Gradients are summed a hundred megabytes at a time: no second copy of all of them is made.
BUCKET_VALUES = 25_000_000
# Waiting for an order takes as long as process 0 draws probes or class images; summing begins only where all are ready.
ORDERS_TIMEOUT, SUMS_TIMEOUT = timedelta(hours=24), timedelta(minutes=10)


class ProcessLost(MachineError):
    """Another process of the company is gone."""


class Wish(Protocol):
    """A wish to stop that one process heard of and the others should."""

    @property
    def number(self) -> int:
        """The signal that came, 0 for none."""

    def hear(self, number: int) -> None:
        """Takes over a wish from another process; no second signal."""


class Company(Share):
    """One of `size` processes. Every method must be called by all of them, in the same order.

    Orders and status go through the processor's memory by gloo, gradients by the device's own way (NCCL on a GPU).
    """

    def __init__(self, rank: int, size: int, stop: Wish) -> None:
        super().__init__(rank, size)
        self.stop = stop
        # How many pieces of common work have ended, faults and all.
        self.settled = 0
        self._sums: Any = None
        self._buffer: torch.Tensor | None = None

    def take_devices(self, on_cpu: bool) -> None:
        """Each process takes the GPU of its number on this machine, and a way for gradients is opened between them."""
        if not on_cpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        with _told_apart(self.size):
            self._sums = distributed.new_group(backend="gloo" if on_cpu else "nccl", timeout=SUMS_TIMEOUT)

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.rank == 0

    def announce(self, order: Mapping[str, Any]) -> None:
        """Tells the others what comes next; only for process 0. The order is plain JSON."""
        data = json.dumps(order).encode("utf-8")
        with _told_apart(self.size):
            distributed.broadcast(torch.tensor([len(data)]), src=0)
            distributed.broadcast(torch.tensor(list(data), dtype=torch.uint8), src=0)

    def await_order(self) -> dict[str, Any]:
        """What process 0 announces next."""
        length = torch.zeros(1, dtype=torch.int64)
        with _told_apart(self.size):
            distributed.broadcast(length, src=0)
            data = torch.zeros(int(length), dtype=torch.uint8)
            distributed.broadcast(data, src=0)
        order: dict[str, Any] = json.loads(bytes(data.tolist()))
        return order

    def exchange(self, report: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every process's report, by rank; plain JSON."""
        data = json.dumps(report).encode("utf-8")
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _told_apart(self.size):
            distributed.all_gather(lengths, torch.tensor([len(data)]))
            longest = max(int(length) for length in lengths)
            # gloo gathers tensors of one size only.
            padded = torch.tensor(list(data.ljust(longest)), dtype=torch.uint8)
            found = [torch.empty_like(padded) for _ in range(self.size)]
            distributed.all_gather(found, padded)
        return [json.loads(bytes(one.tolist())) for one in found]

    def settle(
        self,
        error: Exception | None,
        report: Mapping[str, Any] | None = None,
        take: Callable[[list[dict[str, Any]]], None] = lambda reports: None,
    ) -> None:
        """Ends a piece of common work: `take` gets everybody's report, then the own error or another's is raised."""
        fault = None if error is None else told(error)
        self.settled += 1
        reports = self.exchange({**(report or {}), "fault": fault, "signal": self.stop.number})
        for one in reports:
            if one["signal"]:
                self.stop.hear(one["signal"])
        take(reports)
        if error is not None:
            raise error
        for rank, one in enumerate(reports):
            if one["fault"] is not None:
                raise retold(one["fault"], rank)

    @contextmanager
    def step(self, rate_scale: float, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """See `Alone.step`. An error in the block of any process is raised in all of them, before a sum is begun."""
        if self.leads:
            self.announce({"do": "step", "rate_scale": rate_scale})
        error, flags = None, [False] * len(parameters)
        try:
            yield
            flags = self._make_ready(parameters)
        except Exception as fault:
            error = fault
        # Of a weight that no row reaches there is no gradient, which to an optimiser is not a gradient of zero.
        flags = self._agree(error, flags)
        self._sum([parameter for parameter, flag in zip(parameters, flags, strict=True) if flag])
        for parameter, flag in zip(parameters, flags, strict=True):
            if not flag:
                parameter.grad = None

    @contextmanager
    def agreed(self) -> Iterator[None]:
        error = None
        try:
            yield
        except Exception as fault:
            error = fault
        self._agree(error, [])

    def _agree(self, error: Exception | None, flags: Sequence[bool]) -> list[bool]:
        """Whether each flag is set in any process. Raises an error of any in all, and passes a wish to stop on."""
        status = torch.tensor([error is not None, self.stop.number, *flags], dtype=torch.int32)
        with _told_apart(self.size):
            distributed.all_reduce(status, distributed.ReduceOp.MAX)
        if status[1]:
            self.stop.hear(int(status[1]))
        if status[0]:
            self.settle(error)
        return [bool(flag) for flag in status[2:].tolist()]

    def summed(self, values: Sequence[float]) -> list[float]:
        sums = torch.tensor(values, dtype=torch.float64)
        with _told_apart(self.size):
            distributed.all_reduce(sums)
        return [float(one) for one in sums]

    def _make_ready(self, parameters: Sequence[torch.nn.Parameter]) -> list[bool]:
        """Takes all memory that summing needs, as nobody could be told of a fault in the middle of it."""
        has_gradient = [parameter.grad is not None for parameter in parameters]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self._buffer is None:
            largest = max(parameter.numel() for parameter in parameters)
            size = max(largest, min(BUCKET_VALUES, sum(parameter.numel() for parameter in parameters)))
            self._buffer = torch.empty(size, dtype=torch.float32, device=parameters[0].device)
        return has_gradient

    def _sum(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        assert self._buffer is not None
        waiting: list[torch.Tensor] = []
        for parameter in parameters:
            assert parameter.grad is not None
            if sum(one.numel() for one in waiting) + parameter.numel() > self._buffer.numel():
                self._sum_bucket(waiting)
                waiting = []
            waiting.append(parameter.grad)
        self._sum_bucket(waiting)

    def _sum_bucket(self, gradients: Sequence[torch.Tensor]) -> None:
        assert self._buffer is not None
        if not gradients:
            return
        parts = self._buffer[: sum(one.numel() for one in gradients)].split([one.numel() for one in gradients])
        for part, gradient in zip(parts, gradients, strict=True):
            part.view(gradient.shape).copy_(gradient)
        with _told_apart(self.size):
            distributed.all_reduce(self._buffer[: sum(len(part) for part in parts)], group=self._sums)
        for part, gradient in zip(parts, gradients, strict=True):
            gradient.copy_(part.view(gradient.shape))


def open_store(size: int) -> distributed.TCPStore:
    """Where the processes of this machine find each other: a free port, heard on this machine alone."""
    return distributed.TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)


def find_store(port: int, size: int) -> distributed.TCPStore:
    """The store that process 0 opened."""
    return distributed.TCPStore("127.0.0.1", port, size, is_master=False, wait_for_workers=False)


def join(stop: Wish, store: distributed.TCPStore | None = None) -> Company:
    """Meets the other processes that RANK and WORLD_SIZE tell of; waits until all are there.

    Without a store they meet where MASTER_ADDR and MASTER_PORT say, as torchrun and `accelerate launch` set them.
    """
    from accelerate import PartialState

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # Where it is not said, accelerate would settle anew how many threads there are.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    how: dict[str, Any] = {} if store is None else {"store": store}
    with _told_apart(size):
        # Orders travel between processors whatever the device: a GPU has nothing to do while one waits for them.
        PartialState(cpu=True, backend="gloo", timeout=ORDERS_TIMEOUT, **how)
    return Company(rank, size, stop)


def part() -> None:
    """Leaves the company; what was joined can then be joined anew."""
    from accelerate import PartialState

    if distributed.is_initialized():
        distributed.destroy_process_group()
    PartialState._reset_state()


def told(error: Exception) -> dict[str, Any]:
    """An error as plain values, for another process."""
    is_known = isinstance(error, DreamboothError)
    return {
        "kind": type(error).__name__,
        "message": error.message if isinstance(error, DreamboothError) else str(error),
        "hint": error.hint if isinstance(error, DreamboothError) else None,
        "exit_code": error.exit_code if isinstance(error, DreamboothError) else None,
        "trace": None if is_known else "".join(traceback.format_exception(error)),
    }


def retold(fault: Mapping[str, Any], rank: int) -> Exception:
    """The error of process `rank`, to be raised here: of its kind if it is one of ours, and with its traceback."""
    message = f"{fault['message']} (in process {rank})"
    if fault["exit_code"] is not None:
        kind = getattr(errors, fault["kind"], DreamboothError)
        if kind is errors.Interrupted:
            message = fault["message"]  # a signal concerns them all
        known: DreamboothError = kind(message, fault["hint"], fault["exit_code"])
        return known
    if fault["kind"] in ("MemoryError", "OutOfMemoryError"):
        return MemoryError(message)
    error = RuntimeError(f"{fault['kind']}: {message}")
    error.add_note(f"In process {rank}:\n{fault['trace']}")
    return error


@contextmanager
def _told_apart(size: int) -> Iterator[None]:
    """Turns what a collective raises when a process is gone into ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ProcessLost(f"One of {size} processes is gone: {reason.rstrip('.')}.") from error
