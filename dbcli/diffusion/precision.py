"""The precision in which a forward pass computes, whatever its weights are kept in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> Any:
    """A context inside which passes on a device compute in `fp32`, `bf16` or `fp16`; weights stay as they are."""
    dtype = AUTOCAST.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def sampling_precision(wanted: str, device: torch.device) -> str:
    """The precision that a setting means on a device: `auto` is bf16 on a GPU that computes in it, fp32 elsewhere."""
    if wanted != "auto":
        return wanted
    is_able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if is_able else "fp32"
