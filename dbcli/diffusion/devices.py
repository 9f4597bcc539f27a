"""Which device does the work, what waits in RAM meanwhile, and how much memory was taken."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dbcli.diffusion.bases.stored_layers import is_kept
from dbcli.diffusion.machine import free_ram_bytes, own_status
from dbcli.diffusion.unloading import can_be_unloaded, is_unloaded, reloaded, unload
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


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
        raise UsageError(f"train.device is {wanted}, but this machine has none.", hint="--set train.device=cpu")
    return device


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def idle_in_training(base: Base, *, trains_text: bool) -> list[Any]:
    """What is in memory and no step needs: the autoencoder, and text encoders that do not learn."""
    texts = [encoder for name, encoder in base.encoders.items() if not base.family.parts[name].is_unloaded]
    return [base.vae] if trains_text else [base.vae, *texts]


def offload(*networks: nn.Module) -> None:
    """Moves networks from a GPU to RAM; large ones that are there already leave it, and are read again when needed.

    A small one stays: to read it at every preview would take longer than its memory is worth.
    """
    for network in networks:
        if leaves_memory(network):
            unload(network)
        else:
            network.to("cpu")


def leaves_memory(network: Any) -> bool:
    """Whether a network that is offloaded leaves RAM too: a large one on the CPU that is as its files have it."""
    return next(network.parameters()).device.type == "cpu" and is_kept(network) and can_be_unloaded(network)


@contextmanager
def on_device(device: torch.device, *networks: nn.Module) -> Iterator[None]:
    """Inside it the networks are on a device; after it each is where it was before, or unloaded once more."""
    moved = [network for network in networks if not is_unloaded(network)]
    homes = [next(network.parameters()).device for network in moved]
    for network in moved:
        network.to(device)
    try:
        with reloaded(*networks, device=device):
            yield
    finally:
        for network, home in zip(moved, homes, strict=True):
            network.to(home)


def forget_peak_memory(device: torch.device) -> None:
    """Lets a GPU's peak begin anew: of one process after another run. The CPU's is the process's own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory taken so far: the GPU's allocations, or this process's resident size on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return own_status("VmHWM") or _peak_of_usage()


def free_memory_bytes(device: torch.device) -> int:
    """What a run could take beyond what is taken: of GPU memory, or of RAM as far as its container allows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_ram_bytes()


def _peak_of_usage() -> int:
    # On Linux this figure also counts the program that started this one; elsewhere there is no better.
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
