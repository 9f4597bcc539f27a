"""A LoRA between the formats: low-rank layers by the name of the module they add to, and to and from PEFT."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from dbcli.diffusion.families.family import Family, Networks
from dbcli.diffusion.formats.lycoris import ProductLayer
from dbcli.diffusion.formats.text_names import path_in
from dbcli.diffusion.formats.timestep_ranks import TimestepRanks
from dbcli.diffusion.word_vectors import WordVectors
from dbcli.errors import OtherBase, UnsafeFile, UnsupportedFile


class Adaptable(Protocol):
    """What a LoRA adds to: a base, or anything else with a family and networks."""

    family: Family

    @property
    def tunable(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class LoraLayer:
    """One low-rank addition: W + (alpha / rank) · up · down (Hu et al. 2022, section 4.1).

    `down` is `[rank, in]` and `up` `[out, rank]`, with the kernel behind for convolutions. With `magnitude`
    `[out]` it is DoRA: what leads to each output is rescaled to that length (Liu et al. 2024, equation 5, as PEFT
    has it). Other trainers rescale what comes from each input: then `by_input` is set and `magnitude` is `[in]`. With
    a `schedule` its ranks are in force by timestep.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None
    by_input: bool = False
    schedule: TimestepRanks | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All of its tensors by name."""
        return {"down": self.down, "up": self.up} | ({} if self.magnitude is None else {"magnitude": self.magnitude})

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> LoraLayer:
        """The same with every tensor changed."""
        magnitude = None if self.magnitude is None else change(self.magnitude)
        return replace(self, down=change(self.down), up=change(self.up), magnitude=magnitude)

    def addition(self, shape: Sequence[int]) -> torch.Tensor:
        """(alpha / rank) · up · down, of the weight's shape; DoRA's lengths are not in it."""
        return self.scale * (self.up.flatten(1) @ self.down.flatten(1)).reshape(tuple(shape))


# What a layer of a base can be given.
Layer = LoraLayer | ProductLayer


@dataclass
class LoraWeights:
    """A whole LoRA, or an adapter of its kin: for each network's name its layers by module path, without `text_model.`.

    `metadata` is the file's own, if any. `words` are embeddings that lay in the same file; `left_out` names, one each,
    what else lay in it. `says_strength` is False where PEFT's own file came without the configuration that has its
    alpha.
    """

    parts: dict[str, dict[str, Layer]]
    metadata: dict[str, str] = field(default_factory=dict)
    words: list[WordVectors] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    says_strength: bool = True

    def part(self, name: str) -> dict[str, Layer]:
        """The layers of one network; none where it has none."""
        return self.parts.get(name, {})

    def changed(self, change: Callable[[dict[str, Layer]], dict[str, Layer]]) -> LoraWeights:
        """The same with the layers of every network changed."""
        return replace(self, parts={name: change(layers) for name, layers in self.parts.items()})

    @property
    def layers(self) -> list[Layer]:
        return [layer for layers in self.parts.values() for layer in layers.values()]

    @property
    def by_input(self) -> bool:
        """Whether a layer's DoRA lengths are those of its inputs, which only a merge into the base can follow."""
        return any(layer.by_input for layer in self.layers)

    @property
    def has_dora(self) -> bool:
        return any(layer.magnitude is not None for layer in self.layers)

    @property
    def is_mixed(self) -> bool:
        """Whether some low-rank layers of a network are DoRA and some are not: for diffusers all are or none.

        A layer that adds nothing is no other kind: files for diffusers may need one in its place.
        """
        of_networks = [list(_low_rank(layers).values()) for layers in self.parts.values()]
        return any(
            any(layer.magnitude is None and bool(layer.up.any()) for layer in layers)
            for layers in of_networks
            if any(layer.magnitude is not None for layer in layers)
        )

    @property
    def kind(self) -> Literal["lora", "lokr", "loha"]:
        """What most of its layers are."""
        kinds = Counter[Literal["lora", "lokr", "loha"]](
            layer.kind if isinstance(layer, ProductLayer) else "lora" for layer in self.layers
        )
        return kinds.most_common(1)[0][0] if kinds else "lora"

    @property
    def products(self) -> list[ProductLayer]:
        """Its layers of LoKr and LoHa."""
        return [layer for layer in self.layers if isinstance(layer, ProductLayer)]

    @property
    def schedule(self) -> TimestepRanks | None:
        """By which timesteps its ranks are in force, if not all of them always are (T-LoRA)."""
        return next((one.schedule for one in self.layers if isinstance(one, LoraLayer) and one.schedule), None)

    @property
    def only_merges(self) -> bool:
        """Whether it has lengths that no layer beside the base's own can follow."""
        return self.by_input or any(layer.magnitude is not None for layer in self.products)


# What PEFT needs for one network: keyword arguments of `LoraConfig`, and the adapter's state dict.
PeftLora = tuple[dict[str, Any], dict[str, torch.Tensor]]


def attached_lora(networks: Networks) -> LoraWeights:
    """The one adapter inside each network, every layer with its own rank and alpha; copies on the CPU."""
    return LoraWeights({name: _attached(network) for name, network in networks.items()})


def _attached(network: Any) -> dict[str, Layer]:
    return {
        # PEFT's layers are looked into; those of LoKr and LoHa say themselves what they are.
        name.removeprefix("text_model."): module.finished_layer()
        if hasattr(module, "finished_layer")
        else _attached_layer(module)
        for name, module in network.named_modules()
        if hasattr(module, "finished_layer") or getattr(module, "lora_A", None)
    }


def _attached_layer(module: Any) -> LoraLayer:
    (adapter,) = module.lora_A
    rank, alpha, scaling = int(module.r[adapter]), float(module.lora_alpha[adapter]), float(module.scaling[adapter])
    down, up = (half[adapter].weight.detach().cpu().clone() for half in (module.lora_A, module.lora_B))
    magnitude = module.lora_magnitude_vector[adapter].weight if adapter in module.lora_magnitude_vector else None
    return LoraLayer(
        down,
        up,
        # What counts is the strength a layer is given, whatever it is called.
        alpha if math.isclose(scaling, alpha / rank) else scaling * rank,
        None if magnitude is None else magnitude.detach().cpu().flatten().clone(),
    )


def lora_to_peft(lora: LoraWeights, networks: Networks) -> dict[str, PeftLora]:
    """For each network that the LoRA has layers for what PEFT needs to take it in; its layers of LoKr and LoHa aside.

    Layers may differ in rank and alpha; PEFT hears the commonest of each and the exceptions by name. Raises
    UnsupportedFile for DoRA along the inputs, which PEFT does not know, and on some layers of a network only.
    """
    if lora.by_input:
        raise UnsupportedFile(
            "This DoRA keeps its magnitudes along the inputs, which PEFT and diffusers do not know: "
            "it can be neither trained further nor written for them."
        )
    if lora.is_mixed:
        raise UnsupportedFile(
            "This DoRA has magnitudes on some of its layers only, which PEFT and diffusers do not know: "
            "it cannot be written for them."
        )
    plain = {part: _low_rank(lora.part(part)) for part in networks}
    return {part: _peft(plain[part], network) for part, network in networks.items() if plain[part]}


def _low_rank(layers: Mapping[str, Layer]) -> dict[str, LoraLayer]:
    """Those layers that are none of LoKr and LoHa."""
    return {name: layer for name, layer in layers.items() if isinstance(layer, LoraLayer)}


def _peft(named: Mapping[str, LoraLayer], network: Any) -> PeftLora:
    layers = {path_in(network, name): layer for name, layer in named.items()}
    ranks = {path: layer.rank for path, layer in layers.items()}
    alphas = {path: layer.alpha for path, layer in layers.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    config = {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(ranks),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "use_dora": any(layer.magnitude is not None for layer in layers.values()),
        "bias": "none",
    }
    tensors = {}
    for path, layer in layers.items():
        tensors[f"{path}.lora_A.weight"] = layer.down
        tensors[f"{path}.lora_B.weight"] = layer.up
        if layer.magnitude is not None:
            tensors[f"{path}.lora_magnitude_vector"] = _magnitude(layer, network, path)
    return config, tensors


def _magnitude(layer: LoraLayer, network: Any, path: str) -> torch.Tensor:
    """PEFT keeps it `[out]` for linear layers and `[1, out, 1, 1]` for convolutions."""
    assert layer.magnitude is not None
    weight = network.get_submodule(path).weight
    return layer.magnitude if weight.dim() == 2 else layer.magnitude.reshape(1, -1, 1, 1)


def module_shapes(network: Any) -> dict[str, tuple[int, ...]]:
    """Weight shapes of every layer a LoRA may add to, by path without `text_model.`."""
    return {
        name.removeprefix("text_model."): tuple(module.weight.shape)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def check_layer(name: str, down: tuple[int, ...], up: tuple[int, ...], weight: tuple[int, ...], file: str) -> None:
    """Refuses a layer whose halves do not multiply to the module's shape. Raises UnsafeFile or UnsupportedFile."""
    if len(down) < 2 or len(up) < 2 or down[0] != up[1] or down[0] == 0 or any(size != 1 for size in up[2:]):
        raise UnsafeFile(f"{file}: the halves of {name} do not fit each other ({list(down)}, {list(up)}).")
    if (up[0], down[1]) != weight[:2]:
        raise OtherBase(
            f"{file} was made for another base: {name} is {list(weight[:2])} here and {[up[0], down[1]]} there.",
            hint="Choose the base that the LoRA was trained on.",
        )
    if down[2:] not in (weight[2:], (1,) * len(down[2:])) or (len(weight) == 4 and down[2:] != weight[2:]):
        raise UnsafeFile(f"{file}: {name} has the kernel {list(down[2:])}, not {list(weight[2:])}.")
