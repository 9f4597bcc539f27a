"""Networks whose weights are in memory only while they compute: read from their files again each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Reads a network's weights, on a device; None: on that which it was loaded for.
Reload = Callable[[torch.device | None], None]
_RELOAD = "_reload"


def unload(network: nn.Module, reload: Reload) -> None:
    """Takes a network's weights out of memory, which `reload` brings back; its buffers stay."""
    setattr(network, _RELOAD, reload)
    _empty(network)


def is_unloaded(network: Any) -> bool:
    """Whether a network is without its weights now."""
    return hasattr(network, _RELOAD) and next(network.parameters()).is_meta


@contextmanager
def reloaded(*networks: Any, device: torch.device | None = None) -> Iterator[None]:
    """Inside it unloaded networks have their weights, on a device; others are left alone."""
    loading = [network for network in networks if is_unloaded(network)]
    try:
        for network in loading:
            getattr(network, _RELOAD)(device)
        yield
    finally:
        for network in loading:
            _empty(network)


def _empty(network: nn.Module) -> None:
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            nothing = torch.empty_like(parameter, device="meta")
            setattr(module, name, nn.Parameter(nothing, requires_grad=False))
