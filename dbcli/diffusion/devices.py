"""Which device does the work, and how much of its memory was taken."""

from __future__ import annotations

import platform

import torch

from dbcli.errors import UsageError


def pick_device(wanted: str) -> torch.device:
    """The device a setting means; "auto" is the first GPU, Apple's, or the CPU.

    Raises UsageError if this machine has none such.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise UsageError(f"train.device is {wanted}, and this machine has none.", hint="--set train.device=cpu")
    return device


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory taken so far: the GPU's allocations, or this process's resident size on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
