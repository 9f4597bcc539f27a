"""What this machine has, as far as it is told without torch: its memory, and whether it has no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

# Device files of what torch computes on beside the CPU on Linux: NVIDIA's, also inside WSL, and AMD's.
GPU_FILES = ("nvidia*", "dxg", "kfd")


def has_surely_no_gpu() -> bool:
    """Whether torch, too, would find nothing but the CPU here; only Linux can be asked."""
    devices = Path("/dev")
    return sys.platform == "linux" and devices.is_dir() and not any(any(devices.glob(one)) for one in GPU_FILES)


def resident_bytes() -> int:
    """The RAM that this process holds now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def free_ram_bytes() -> int:
    """The RAM that this process could take beyond what is taken, as far as its container and limits allow."""
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_container_room(), *_allowed_room()]))


def _container_room() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return []
    return [int(limit) - int(used)] if limit.isdecimal() and used.isdecimal() else []


def _allowed_room() -> list[int]:
    """What limits set for this process, as by `ulimit -d` and `ulimit -v`, leave of address space."""
    try:
        import resource
    except ImportError:
        return []  # Windows has none
    kinds = {"VmData": resource.RLIMIT_DATA, "VmSize": resource.RLIMIT_AS}
    limits = {field: resource.getrlimit(kind)[0] for field, kind in kinds.items()}
    return [most - own_status(field) for field, most in limits.items() if most != resource.RLIM_INFINITY]


def own_status(field: str) -> int:
    """A size from the kernel's own account of this process; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
