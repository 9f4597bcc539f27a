"""Which layers of a network adapters are asked for: names as PEFT reads them, held against the layers there are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

# PEFT knows this word for language models only; here it is every linear layer of a network.
ALL_LINEAR = "all-linear"


def matching(network: nn.Module, target: str) -> dict[str, nn.Module]:
    """The modules that a name means: those whose path ends in it, part for part; every linear one for ALL_LINEAR."""
    return {
        name: module
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) if target == ALL_LINEAR else f".{name}".endswith(f".{target}"))
    }


def unusable(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """Those of the names that mean no layer, or something that is no linear layer and no convolution."""
    return [
        target
        for target in targets
        if not (found := matching(network, target)) or not all(map(_can_adapt, found.values()))
    ]


def layer_names(network: nn.Module) -> list[str]:
    """The short names of all layers that can have adapters, each once: to_q, to_out.0, ff.net.2, conv1."""
    return sorted({_short(name) for name, module in network.named_modules() if _can_adapt(module)})


def expanded(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """The names with ALL_LINEAR spelt out, as PEFT takes them."""
    spelt = [list(matching(network, target)) if target == ALL_LINEAR else [target] for target in targets]
    return list(dict.fromkeys(name for names in spelt for name in names))


def _can_adapt(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _short(path: str) -> str:
    """The end of a path that means the same layer in every block: numbers alone say nothing."""
    parts = path.split(".")
    start = len(parts) - 1
    while start > 0 and (parts[start].isdecimal() or parts[start] in ("net", "proj")):
        start -= 1
    return ".".join(parts[start:])
