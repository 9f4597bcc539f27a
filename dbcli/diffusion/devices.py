"""Which device does the work, and how much of its memory was taken."""

from __future__ import annotations

import platform
from pathlib import Path

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
    return _own_status("VmHWM") or _peak_of_usage()


def keep_freed_memory() -> None:
    """Hands back what was freed until now; from here on the C library, where it is glibc, may keep up to a gigabyte.

    A step frees its gradients and activations and takes as much again: handing pages back in between and having
    them cleared anew took an eighth of the processor's time of a small model.
    """
    import ctypes

    trim_threshold, mmap_threshold = -1, -3
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallopt(mmap_threshold, 32 << 20)
        library.mallopt(trim_threshold, 1 << 30)
    except (OSError, AttributeError, TypeError):
        return  # another C library, another allocator


def resident_bytes() -> int:
    """What this process holds of the machine's memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def free_memory_bytes(device: torch.device) -> int:
    """What a run could take beyond what is taken: of the GPU, or of the machine as far as its container allows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device)
    import psutil

    return min([int(psutil.virtual_memory().available), *_container_room()])


def _container_room() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return []
    return [int(limit) - int(used)] if limit.isdecimal() and used.isdecimal() else []


def _own_status(field: str) -> int:
    """A size from the kernel's own account of this process; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _peak_of_usage() -> int:
    # On Linux this figure also counts the program that started this one; elsewhere there is no better.
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
