"""One program on several processes: what each rank knows of the others, and how they agree.

Every rank runs the same command from its first line to its last, as `accelerate launch`, torchrun or `--gpus N` start
it; the main rank alone writes records and decides. torch is imported only where there are several.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from dbcli.errors import DreamboothError, Interrupted, MachineError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class ProcessLost(MachineError):
    """Another process of the group is gone."""


class ProcessGroup:
    """One of `size` ranks, which call its methods in the same order.

    What ranks tell each other goes through RAM by gloo, gradients by the device's own way (NCCL on a GPU).
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.is_main = rank, size, rank == 0
        self.sums: Any = None  # the group that sums gradients; None for gloo's

    def gather(self, value: T, error: Exception | None = None) -> list[T]:
        """Every rank's value, which can be pickled, by rank. Raises `error`, or what another rank came with."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        with _alive(self.size):
            gathered = gather_object([(value, None if error is None else portable(error, self.rank))])
        # Of several errors all ranks take the same one, so that they go on alike.
        rank, fault = next(((rank, fault) for rank, (_, fault) in enumerate(gathered) if fault is not None), (0, None))
        if fault is not None:
            found: Exception = error if error is not None and rank == self.rank else fault
            vars(found)["is_known_to_all_ranks"] = True
            raise found
        return [value for value, _ in gathered]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block of all ranks: an error in any of them is raised in all.

        It is told once: the end of the innermost block of the rank that fails meets the others' next message.
        """
        error = None
        try:
            yield
        except Exception as fault:
            if self.size == 1 or isinstance(fault, ProcessLost) or getattr(fault, "is_known_to_all_ranks", False):
                raise
            error = fault
        self.gather(None, error)

    def on_main(self, work: Callable[[], T]) -> T:
        """Calls `work` on the main rank alone; what it returns or raises is returned or raised in all."""
        if self.size == 1:
            return work()
        value, error = None, None
        try:
            value = work() if self.is_main else None
        except Exception as fault:
            error = fault
        found: Any = self.gather(value, error)[0]
        return value if self.is_main else found  # type: ignore[return-value]  # the main rank's is a T by now

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main rank runs the block before the others: it downloads, they find."""
        if not self.is_main:
            self.gather(None)
        yield
        if self.is_main:
            self.gather(None)

    def split(self, places: Collection[int], batch_size: int) -> set[int]:
        """Those of some places among images made in batches that this rank makes: whole batches, each by one rank."""
        own = sorted({place // batch_size for place in places})[self.rank :: self.size]
        return {place for place in places if place // batch_size in own}

    @contextmanager
    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """The block makes this rank's gradients; after it they are the sum over all ranks."""
        if self.size == 1:
            yield
            return
        import torch

        with self.together():
            yield
            reached = [parameter.grad is not None for parameter in parameters]
            for weight in parameters:  # all memory that is needed: in the middle of a sum nobody could be told
                weight.grad = (torch.zeros_like(weight) if weight.grad is None else weight.grad).contiguous()
        for parameter, *flags in zip(parameters, *self.gather(reached), strict=True):
            if any(flags):
                with _alive(self.size):
                    torch.distributed.all_reduce(parameter.grad, group=self.sums)
            else:  # where no row reaches a weight it has no gradient, which to an optimiser is not a gradient of zero
                parameter.grad = None


SINGLE = ProcessGroup()


def portable(error: Exception, rank: int) -> Exception:
    """A copy of an error of process `rank` for the others: of its kind where it can be pickled, with its traceback."""
    try:
        pickle.dumps(error)
        copied = copy.deepcopy(error)
    except Exception:
        copied = RuntimeError(f"{type(error).__name__}: {error}")
    if len(copied.args) == 1 and isinstance(copied.args[0], str) and not isinstance(copied, Interrupted):
        copied.args = (f"{copied.args[0]} (in process {rank})",)
    if isinstance(copied, DreamboothError):
        copied.message = str(copied)
    copied.add_note(f"In process {rank}:\n{''.join(traceback.format_exception(error))}")
    return copied


@contextmanager
def _alive(size: int) -> Iterator[None]:
    """Turns what a collective raises when a process is gone into ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ProcessLost(f"One of {size} processes is gone: {reason.rstrip('.')}.") from error


def launched_size() -> int:
    """How many processes a launcher started together with this one; 1 where none did."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


@contextmanager
def joined() -> Iterator[ProcessGroup]:
    """The group of a launch, which the process meets and leaves again; SINGLE without one.

    What the other ranks say leads nowhere, and they end with 0, so that the main rank's exit code is that of all.
    """
    if launched_size() == 1:
        yield SINGLE
        return
    import torch
    import torch.distributed.nn  # imported later, its functions' defaults would keep the group and its threads alive
    from accelerate import PartialState

    threading.Thread(target=_end_with_launcher, args=(os.getppid(),), daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # else accelerate would settle it anew
    state = PartialState(cpu=True, backend="gloo", timeout=timedelta(hours=24))  # the main rank may score long
    group = ProcessGroup(state.process_index, state.num_processes)
    if not group.is_main:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)
    try:
        with group.together():
            yield group
    except Exception as error:
        if isinstance(error, ProcessLost):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher ends all: let the reason be said first
        if group.is_main:
            raise
        sys.exit(error.exit_code if isinstance(error, ProcessLost) else 0)
    finally:
        torch.distributed.destroy_process_group()


def _end_with_launcher(launcher: int) -> None:
    """A rank whose launcher was killed stops as by a signal instead of computing on unseen."""
    while os.getppid() == launcher:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
