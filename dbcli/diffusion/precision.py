"""Which precision passes compute in, and what of it a CPU does otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch.nn import functional

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Positions of queries and keys up to which half precision is the slower one on a CPU.
SHORT_ATTENTION = 256


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """A context inside which passes on a device compute in `fp32`, `bf16` or `fp16`, whatever weights are kept in."""
    dtype = AUTOCAST.get(precision)
    if dtype is None:
        yield
        return
    # Without gradients it would change nothing.
    learns_on_cpu = device.type == "cpu" and torch.is_grad_enabled()
    with torch.autocast(device.type, dtype=dtype), _short_attention_in_float32() if learns_on_cpu else nullcontext():
        yield


def recomputed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function gives, whose activations are computed once more in the backward pass, as in the first.

    Of what `autocast` does, torch by itself brings back its own part alone.
    """
    from torch.utils.checkpoint import checkpoint

    is_reduced = torch.is_autocast_enabled("cpu")

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return nullcontext(), _short_attention_in_float32() if is_reduced else nullcontext()

    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _short_attention_in_float32() -> Iterator[None]:
    """Inside it short attention whose gradients are asked for computes in float32, and gives the type it was given.

    On a CPU its backward pass in half precision takes five to ten times as long where there are few positions (torch
    2.14, 64 of 16 values: 6.8 against 1.1 ms); from about 1,000 positions on half precision is the faster one.
    """
    attend = functional.scaled_dot_product_attention

    @wraps(attend)
    def attended(query: torch.Tensor, key: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        if not torch.is_grad_enabled() or query.shape[-2] * key.shape[-2] > SHORT_ATTENTION**2:
            return attend(query, key, *others, **named)
        with torch.autocast("cpu", enabled=False):
            wide = attend(
                *map(_in_float32, (query, key, *others)),
                **{name: _in_float32(value) for name, value in named.items()},
            )
        return wide.to(query.dtype)

    # A mode of torch's would be asked about each of the thousands of calls of a pass, a twentieth of a LoRA's step.
    functional.scaled_dot_product_attention = attended
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


def _in_float32(value: Any) -> Any:
    """A floating-point tensor as float32, anything else as it is."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def where_float64_is(values: torch.Tensor) -> torch.Tensor:
    """A tensor on a device that has double precision: on the CPU in place of Apple's GPUs, which have none."""
    return values.cpu() if values.device.type == "mps" else values


def precision_on(wanted: str, device: torch.device) -> str:
    """The precision that a setting means on a device: `auto` is bf16 where the device computes in it, else fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if computes_in_bf16(device) else "fp32"


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 itself; a CPU that only imitates it is slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch do not say what a CPU can do.
    ask = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, object] = ask() if device.type == "cpu" else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
