"""Networks that are needed for a moment: their weights are read when it comes, and put away when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Fills a network with its weights, on a device; None: on that which it was loaded for.
Refill = Callable[[torch.device | None], None]
_REFILL = "_refill"


def put_to_rest(network: nn.Module, refill: Refill) -> None:
    """Takes a network's weights out of memory, which `refill` brings back; its buffers stay."""
    setattr(network, _REFILL, refill)
    _empty(network)


def is_resting(network: Any) -> bool:
    """Whether a network is one that rests, and without its weights now."""
    return hasattr(network, _REFILL) and next(network.parameters()).is_meta


@contextmanager
def awake(*networks: Any, device: torch.device | None = None) -> Iterator[None]:
    """Inside it those of the networks that rest have their weights, on a device; others are left alone."""
    woken = [network for network in networks if is_resting(network)]
    try:
        for network in woken:
            getattr(network, _REFILL)(device)
        yield
    finally:
        for network in woken:
            _empty(network)


def _empty(network: nn.Module) -> None:
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            nothing = torch.empty_like(parameter, device="meta")
            setattr(module, name, nn.Parameter(nothing, requires_grad=False))
