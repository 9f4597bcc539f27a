"""Which device does the work and in which precision, what waits in RAM meanwhile, and how much memory was taken."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dbcli.diffusion.bases.stored_layers import is_kept
from dbcli.diffusion.machine import free_ram_bytes, own_status
from dbcli.diffusion.unloading import can_be_unloaded, is_unloaded, reloaded, unload
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Positions of queries and keys up to which half precision is the slower one on a CPU.
SHORT_ATTENTION = 256


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


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context inside which passes on a device compute in `fp32`, `bf16` or `fp16`, whatever weights are kept in."""
    dtype = AUTOCAST.get(precision)
    if dtype is None:
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, dtype=dtype))
    if device.type == "cpu":
        stack.enter_context(_ShortAttentionInFloat32())
    return stack


def recomputed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function gives, whose activations are computed once more in the backward pass, as in the first.

    Of what `autocast` does, torch by itself brings back its own part alone.
    """
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils.checkpoint import checkpoint

    is_wide = any(isinstance(mode, _ShortAttentionInFloat32) for mode in _get_current_function_mode_stack())

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return nullcontext(), _ShortAttentionInFloat32() if is_wide else nullcontext()

    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts, **kwargs)


class _ShortAttentionInFloat32(TorchFunctionMode):
    """Inside it short attention whose gradients are asked for computes in float32, and gives the type it was given.

    On a CPU its backward pass in half precision takes five to ten times as long where there are few positions (torch
    2.14, 64 of 16 values: 6.8 against 1.1 ms); from about 1,000 positions on half precision is the faster one.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is not torch.nn.functional.scaled_dot_product_attention or not torch.is_grad_enabled():
            return func(*args, **named)
        query, key = (args[place] if place < len(args) else named[name] for place, name in enumerate(("query", "key")))
        if query.shape[-2] * key.shape[-2] > SHORT_ATTENTION**2:
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            wide = func(*map(_in_float32, args), **{name: _in_float32(value) for name, value in named.items()})
        return wide.to(query.dtype)


def _in_float32(value: Any) -> Any:
    """A floating-point tensor as float32, anything else as it is."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def precision_on(wanted: str, device: torch.device) -> str:
    """The precision that a setting means on a device: `auto` is bf16 where the device computes in it, else fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if _computes_in_bf16(device) else "fp32"


def _computes_in_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 itself; a CPU that only imitates it is slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch do not say what a CPU can do.
    ask = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, object] = ask() if device.type == "cpu" else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


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


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory taken so far: the GPU's allocations, or this process's resident size on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return own_status("VmHWM") or _peak_of_usage()


def keep_freed_memory() -> None:
    """Returns what was freed until now; from here on the C library, where it is glibc, may keep up to a gigabyte.

    A step frees its gradients and activations and takes as much again: returning pages in between and having them
    cleared anew took an eighth of a small model's CPU time.
    """
    _set_allocator(mapped_from=32 << 20, kept=1 << 30)


def _set_allocator(*, mapped_from: int, kept: int) -> None:
    """From which size on glibc maps memory and returns it at once, and how much of the rest it keeps."""
    import ctypes

    trim_threshold, mmap_threshold = -1, -3
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallopt(mmap_threshold, mapped_from)
        library.mallopt(trim_threshold, kept)
    except (OSError, AttributeError, TypeError):
        return  # another C library, another allocator


def hand_back_freed_memory() -> None:
    """Returns to the system what was freed and kept, of the GPU and of the C library, and keeps none from now on.

    A limit for the process counts address space, of which a heap with gaps returns none: so tensors are allocated
    outside of it.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _set_allocator(mapped_from=128 << 10, kept=128 << 10)


def free_memory_bytes(device: torch.device) -> int:
    """What a run could take beyond what is taken: of GPU memory, or of RAM as far as its container allows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device)
    return free_ram_bytes()


def _peak_of_usage() -> int:
    # On Linux this figure also counts the program that started this one; elsewhere there is no better.
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
