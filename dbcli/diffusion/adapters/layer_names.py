"""The names of a network's layers, and which of them adapters may be asked for; from headers too, so without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.files.weight_choice import OF_DIFFUSERS, OF_TRANSFORMERS, chosen_weights, files_of

if TYPE_CHECKING:
    from torch import nn

# PEFT knows this word for language models only; here it is every linear layer of a network.
ALL_LINEAR = "all-linear"

# The path of a module in its network -> whether it can have an adapter: a linear layer or a convolution.
Layers = Mapping[str, bool]


def is_target(path: str, targets: Sequence[str]) -> bool:
    """Whether one of the names means the module at `path`: whose path ends in it, part for part."""
    return any(f".{path}".endswith(f".{target}") for target in targets)


def unusable(layers: Layers, targets: Sequence[str]) -> list[str]:
    """Those of the names that mean no layer, or something that is no linear layer and no convolution.

    A name means a module whose path ends in it, part for part.
    """
    wrong = []
    for target in targets:
        found = [fits for path, fits in layers.items() if is_target(path, [target])]
        if target != ALL_LINEAR and not (found and all(found)):
            wrong.append(target)
    return wrong


def short_names(layers: Layers) -> list[str]:
    """The short names of all layers that can have adapters, each once: to_q, to_out.0, ff.net.2, conv1."""
    return sorted({_short(path) for path, fits in layers.items() if fits})


def stored_layers(folder: Path) -> dict[str, bool]:
    """The linear layers and convolutions of a network's folder, from the headers of its weights.

    Modules without weights are not among them. Empty where the folder has no `.safetensors`.
    """
    present = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    choice = chosen_weights(OF_DIFFUSERS, present) or chosen_weights(OF_TRANSFORMERS, present)
    files = [] if choice is None else files_of(folder, choice)
    found = {}
    for file in files if all(one.suffix == ".safetensors" for one in files) else []:
        weights = open_weights(file)
        for name in weights.names():
            path, _, last = name.rpartition(".")
            # Tables of embeddings have two dimensions too.
            if last == "weight" and len(weights.shape(name)) in (2, 4) and not path.endswith("_embedding"):
                found[path.removeprefix("text_model.")] = True
    return found


def layers_of(network: nn.Module) -> Layers:
    """Every module of a network by its path, and whether it can have an adapter."""
    from torch import nn

    return {name: isinstance(module, nn.Linear | nn.Conv2d) for name, module in network.named_modules()}


def expanded(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """The names with ALL_LINEAR spelt out, as PEFT takes them."""
    from torch import nn

    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    spelt = [linear if target == ALL_LINEAR else [target] for target in targets]
    return list(dict.fromkeys(name for names in spelt for name in names))


def _short(path: str) -> str:
    """The end of a path that means the same layer in every block: numbers alone say nothing."""
    parts = path.split(".")
    start = len(parts) - 1
    while start > 0 and (parts[start].isdecimal() or parts[start] in ("net", "proj")):
        start -= 1
    return ".".join(parts[start:])
