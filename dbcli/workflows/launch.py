"""`--gpus N`: the same command on N processes of this machine, by the launcher that torchrun and accelerate start."""

import logging
import os
import sys
from collections.abc import Sequence

from dbcli.diffusion.distributed import ProcessGroup
from dbcli.diffusion.distributed import joined as joined
from dbcli.diffusion.distributed import launched_size as launched_size
from dbcli.errors import MachineError, UsageError
from dbcli.workflows.progress import Progress


def launch(words: Sequence[str], processes: int) -> int:
    """Runs a command line on so many ranks to its end; the main rank's exit code.

    A signal is passed on to all. Where one fails the others are ended within 30 seconds. MachineError: one was killed.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # the main rank says what has to be known
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name may lead nowhere
    config = LaunchConfig(1, 1, processes, DefaultLogsSpecs(os.devnull), max_restarts=0, local_addr="127.0.0.1")
    config.rdzv_endpoint, config.rdzv_backend, config.run_id = "127.0.0.1:0", "c10d", str(os.getpid())
    try:
        elastic_launch(config, sys.executable)("-m", "dbcli.cli.start", *words)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in sorted(failed.failures.items())}
        # A rank that the launcher itself ended by SIGTERM, as another had failed, is not the cause.
        rank, code = next((one for one in codes.items() if one[1] not in (-15, 143)), (0, codes.get(0, 1)))
        if rank == 0 and code > 0:  # the main rank has said why
            return code
        raise MachineError(f"Process {rank} ended with {code}.", hint="retry, or: dreambooth train --resume") from None
    return 0


def check_devices(processes: int, device: str, *, fused_backward: bool = False) -> None:
    """Raises UsageError where there are fewer devices here than processes, and for a fused backward pass on several."""
    if processes == 1:
        return
    if fused_backward:
        message = "train.fused_backward changes weights before the gradients of several GPUs can be summed."
        raise UsageError(message, hint="--set train.fused_backward=false, or leave --gpus out")
    if device == "cpu":
        return
    import torch

    if device not in ("auto", "cuda"):
        message = f"train.device is {device}: one device, and {processes} processes need one each."
        raise UsageError(message, hint="--set train.device=auto")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < here:
        message = f"{here} GPUs were requested; this machine has {found or 'none'} that can be used."
        raise UsageError(message, hint=f"--gpus {found}" if found else "leave --gpus out, or --set train.device=cpu")


def take_devices(group: ProcessGroup, device: str, progress: Progress, *, fused_backward: bool = False) -> None:
    """Gives each rank a device of its own. Raises UsageError where there are too few, and for a fused backward pass."""
    check_devices(group.size, device, fused_backward=fused_backward)
    if group.size == 1:
        return
    progress.note(f"{group.size} processes work together, {'on the CPU' if device == 'cpu' else 'one GPU each'}.")
    if device == "cpu":
        return
    import torch

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    group.sums = torch.distributed.new_group(backend="nccl")
