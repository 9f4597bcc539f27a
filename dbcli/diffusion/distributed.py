"""One program on several processes: what each rank knows of the others, and how they agree.

Every rank runs the same command from its first line to its last, as `accelerate launch`, torchrun or `--gpus N` start
it; the main rank alone writes records and decides. torch is imported only where there are several.
"""

from __future__ import annotations

import os
import pickle
import signal
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
    from accelerate import PartialState

T = TypeVar("T")

# The others wait for the main rank as long as it scores a probe; summing begins only where all are ready.
CONTROL_TIMEOUT, SUMS_TIMEOUT = timedelta(hours=24), timedelta(minutes=10)
# What torchrun, and therefore accelerate launch, tells each process that it starts.
LAUNCHED = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
_SHARED = "_is_known_to_all_ranks"


class ProcessLost(MachineError):
    """Another process of the group is gone."""


class ProcessGroup:
    """One of `size` ranks, which call its methods in the same order; without a state the only one.

    What ranks tell each other goes through RAM by gloo, gradients by the device's own way (NCCL on a GPU).
    """

    def __init__(self, state: PartialState | None = None) -> None:
        self.rank, self.size = (0, 1) if state is None else (state.process_index, state.num_processes)
        self.is_main = self.rank == 0
        # The group that sums gradients; None for gloo's.
        self.sums: Any = None

    def gather(self, value: T, error: Exception | None = None) -> list[T]:
        """Every rank's value, which can be pickled, by rank. Raises `error`, or what another rank came with."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        with _alive(self.size):
            told = gather_object([(value, None if error is None else portable(error, self.rank))])
        # Of several errors all ranks take the same one, so that they go on alike.
        rank, fault = next(((rank, fault) for rank, (_, fault) in enumerate(told) if fault is not None), (0, None))
        if fault is not None:
            found: Exception = error if error is not None and rank == self.rank else fault
            vars(found)[_SHARED] = True
            raise found
        return [value for value, _ in told]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block of all ranks: an error in any of them is raised in all.

        It is told once, at the end of the innermost block of the rank that fails, which meets whatever message the
        others come to next; from there all unwind alike.
        """
        error = None
        try:
            yield
        except Exception as fault:
            if self.size == 1 or isinstance(fault, ProcessLost) or getattr(fault, _SHARED, False):
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
        batches = sorted({place // batch_size for place in places})
        own = batches[self.rank :: self.size]
        return {place for place in places if place // batch_size in own}

    @contextmanager
    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """The block makes this rank's gradients; after it they are the sum over all ranks."""
        if self.size == 1:
            yield
            return
        import torch

        error, reached = None, [False] * len(parameters)
        try:
            yield
            reached = [parameter.grad is not None for parameter in parameters]
            for parameter in parameters:  # all memory that is needed: in the middle of a sum nobody could be told
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = gradient.contiguous()
        except Exception as fault:
            error = fault
        # Of a weight that no row reaches there is no gradient, which to an optimiser is not a gradient of zero.
        for parameter, *flags in zip(parameters, *self.gather(reached, error), strict=True):
            if not any(flags):
                parameter.grad = None
                continue
            with _alive(self.size):
                torch.distributed.all_reduce(parameter.grad, group=self.sums)


SINGLE = ProcessGroup()


def portable(error: Exception, rank: int) -> Exception:
    """A copy of an error of process `rank` for the others: of its kind where it can be pickled, with its traceback."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    if len(copy.args) == 1 and isinstance(copy.args[0], str) and not isinstance(copy, Interrupted):
        copy.args = (f"{copy.args[0]} (in process {rank})",)
    if isinstance(copy, DreamboothError):
        copy.message = str(copy)
    else:
        copy.add_note(f"In process {rank}:\n{''.join(traceback.format_exception(error))}")
    return copy


@contextmanager
def _alive(size: int) -> Iterator[None]:
    """Turns what a collective raises when a process is gone into ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ProcessLost(f"One of {size} processes is gone: {reason.rstrip('.')}.") from error


def launched() -> tuple[int, int] | None:
    """This process's rank, and how many of them a launcher started; None where none did."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if os.environ.keys() >= LAUNCHED else None


@contextmanager
def joined() -> Iterator[ProcessGroup]:
    """Meets the other processes of a launch, waits until all are there, and leaves them again."""
    import torch
    from accelerate import PartialState

    threading.Thread(target=_end_with_launcher, args=(os.getppid(),), daemon=True).start()
    # Where it is not said, accelerate would settle anew how many threads there are.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    try:
        yield ProcessGroup(PartialState(cpu=True, backend="gloo", timeout=CONTROL_TIMEOUT))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        PartialState._reset_state()


def _end_with_launcher(launcher: int) -> None:
    """A rank whose launcher was killed stops as by a signal instead of computing on unseen."""
    while os.getppid() == launcher:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
