"""Networks whose weights are in memory only while they compute: read from their files again each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Reads a network's weights, on a device; None: on that which it was loaded for.
Reload = Callable[[torch.device | None], None]
_FILES = "_files"
PICKLED = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class _Files:
    """What brings a network's weights back, and where in memory they were when they had been read."""

    reload: Reload
    places: dict[str, int]

    def __deepcopy__(self, memo: object) -> _Files:
        """Itself: a copy of a network has the same files, and what is open of them cannot be copied."""
        return self


def remember_files(network: nn.Module, reload: Reload) -> None:
    """Says how a network's weights, which are as its files have them now, are read from these once more."""
    setattr(network, _FILES, _Files(reload, _places(network)))


def can_be_read_again(files: Iterable[Path]) -> bool:
    """Whether weights are worth reading from these files once more: a pickle would stay mapped, and count as memory."""
    return not any(file.suffix in PICKLED for file in files)


def can_be_unloaded(network: Any) -> bool:
    """Whether a network is as its files have it: no weight was replaced, and no layer added or taken out.

    Weights that were changed in the memory that they have are not seen.
    """
    files = getattr(network, _FILES, None)
    return files is not None and files.places == _places(network)


def unload(network: Any) -> None:
    """Takes the weights of a network whose files are remembered out of memory; its buffers stay."""
    _empty(network)


def is_unloaded(network: Any) -> bool:
    """Whether a network is without its weights now."""
    return hasattr(network, _FILES) and next(network.parameters()).is_meta


@contextmanager
def reloaded(*networks: Any, device: torch.device | None = None) -> Iterator[None]:
    """Inside it unloaded networks have their weights, on a device; others are left alone."""
    loading = [network for network in networks if is_unloaded(network)]
    try:
        for network in loading:
            getattr(network, _FILES).reload(device)
        yield
    finally:
        for network in loading:
            _empty(network)


def _places(network: nn.Module) -> dict[str, int]:
    return {name: parameter.data_ptr() for name, parameter in network.named_parameters()}


def _empty(network: nn.Module) -> None:
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            nothing = torch.empty_like(parameter, device="meta")
            setattr(module, name, nn.Parameter(nothing, requires_grad=False))
