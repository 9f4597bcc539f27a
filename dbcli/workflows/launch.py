"""`--gpus N`: the same command on N processes of this machine, by the launcher that torchrun and accelerate start."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from tempfile import TemporaryDirectory

from dbcli.diffusion.distributed import SINGLE, SUMS_TIMEOUT, ProcessGroup, ProcessLost, joined
from dbcli.diffusion.distributed import launched as launched
from dbcli.errors import MachineError, UsageError
from dbcli.workflows.progress import Progress


def launch(words: Sequence[str], processes: int) -> int:
    """Runs a command line on so many ranks to its end; the main rank's exit code.

    A signal is passed on to all of them. Where one fails the others are ended, within 30 seconds. Raises MachineError
    where a rank was killed and the main rank could not say so.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What a person needs to know, the main rank says.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    if sys.platform == "linux":
        # A machine's own name may lead to an address that nothing answers at.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    here = {"local_addr": "127.0.0.1", "rdzv_endpoint": "127.0.0.1:0", "rdzv_backend": "c10d"}
    try:
        with TemporaryDirectory() as logs:
            specs = DefaultLogsSpecs(logs)
            config = LaunchConfig(1, 1, processes, specs, max_restarts=0, monitor_interval=0.1, **here)
            elastic_launch(config, sys.executable)("-m", "dbcli.cli.start", *words)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in sorted(failed.failures.items())}
        if codes.get(0, 0) > 0:  # the main rank has said why
            return codes[0]
        rank, code = next(iter(codes.items()))
        hint = "the same command, or dreambooth train --resume, goes on from what is kept"
        raise MachineError(f"Process {rank} ended with {code}.", hint=hint) from None
    return 0


def processes_of(gpus: int) -> int:
    """How many processes a command has. Raises UsageError where --gpus and a launcher say different numbers."""
    size = (launched() or (0, 1))[1]
    if size > 1 and gpus not in (1, size):
        hint = "leave --gpus out under torchrun or accelerate launch"
        raise UsageError(f"--gpus {gpus} was asked for, and a launcher started {size} processes.", hint=hint)
    return max(size, gpus)


@contextmanager
def process_group(processes: int) -> Iterator[ProcessGroup]:
    """The group that a launcher started. What the other ranks say leads nowhere, and they end as the main rank does."""
    if processes == 1:
        yield SINGLE
        return
    with joined() as group:
        if group.is_main:
            with group.together():
                yield group
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                with group.together():
                    yield group
            except Exception as error:
                sys.exit(error.exit_code if isinstance(error, ProcessLost) else 0)


def take_devices(group: ProcessGroup, device: str, progress: Progress, *, fused_backward: bool = False) -> None:
    """Gives each rank a device of its own. Raises UsageError where there are too few, and for a fused backward pass."""
    if group.size == 1:
        return
    if fused_backward:
        message = "train.fused_backward changes weights before the gradients of several GPUs could be summed."
        raise UsageError(message, hint="--set train.fused_backward=false, or leave --gpus out")
    progress.note(f"{group.size} processes work together, {'on the CPU' if device == 'cpu' else 'a GPU each'}.")
    if device == "cpu":
        return
    import torch

    hint = "leave --gpus out; --set train.device=cpu makes them processes"
    if device not in ("auto", "cuda"):
        message = f"train.device is {device}: one device, and {group.size} processes need one each."
        raise UsageError(message, hint="--set train.device=auto")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", group.size))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < here:
        message = f"{here} GPUs were asked for; this machine has {found or 'none'} that can be used."
        raise UsageError(message, hint=f"--gpus {found}" if found else hint)
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    group.sums = torch.distributed.new_group(backend="nccl", timeout=SUMS_TIMEOUT)
