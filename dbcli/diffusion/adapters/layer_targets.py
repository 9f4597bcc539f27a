"""Which layers of a network adapters are asked for: names as PEFT reads them, and the modules that they mean."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dbcli.diffusion.adapters.layer_names import ALL_LINEAR, Layers, is_meant


def matching(network: nn.Module, target: str) -> dict[str, nn.Module]:
    """The modules that a name means: those whose path ends in it, part for part; every linear one for ALL_LINEAR."""
    return {
        name: module
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) if target == ALL_LINEAR else is_meant(name, target))
    }


def layers_of(network: nn.Module) -> Layers:
    """Every module of a network by its path, and whether it can have an adapter."""
    return {name: isinstance(module, nn.Linear | nn.Conv2d) for name, module in network.named_modules()}


def expanded(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """The names with ALL_LINEAR spelt out, as PEFT takes them."""
    spelt = [list(matching(network, target)) if target == ALL_LINEAR else [target] for target in targets]
    return list(dict.fromkeys(name for names in spelt for name in names))
