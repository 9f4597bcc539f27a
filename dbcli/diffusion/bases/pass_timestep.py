"""The timestep of the pass that a network is in, for layers that go by it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ATTRIBUTE = "_timestep_of_pass"


class Timestep:
    """The timesteps of the pass that a network is in, `[rows]` or a scalar: its layers have no other way to know."""

    def __init__(self, network: nn.Module) -> None:
        self.now = torch.zeros(())
        network.register_forward_pre_hook(self._remember, with_kwargs=True)

    def _remember(self, network: nn.Module, words: tuple[Any, ...], named: dict[str, Any]) -> None:
        found = named["timestep"] if "timestep" in named else words[1]
        self.now = found if isinstance(found, torch.Tensor) else torch.tensor(found)


def timestep_of(network: nn.Module) -> Timestep:
    """What tells the layers of a network its timestep; one a network."""
    known: Timestep | None = getattr(network, ATTRIBUTE, None)
    if known is None:
        known = Timestep(network)
        # Around the module's own bookkeeping: it is no layer.
        object.__setattr__(network, ATTRIBUTE, known)
    return known


def depends_on_timestep(network: nn.Module) -> bool:
    """Whether a network has layers whose ranks go by the timestep."""
    return getattr(network, ATTRIBUTE, None) is not None
