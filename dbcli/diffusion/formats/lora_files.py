"""LoRA files of other programs in: what is in them is used, named where it is left out, or refused by name.

Read with a base at hand, so that each name is looked up among the base's own layers and never guessed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.files.weight_file import WeightFile, require_float
from dbcli.diffusion.formats.adapter_config import AdapterConfig, adapter_configs
from dbcli.diffusion.formats.embedding_files import read_bundled
from dbcli.diffusion.formats.factor_names import FACTORS, LOHA, LOKR
from dbcli.diffusion.formats.kind_checks import check_family, check_lora
from dbcli.diffusion.formats.lora import Adaptable, Layer, LoraLayer, LoraWeights, check_layer, module_shapes
from dbcli.diffusion.formats.lora_names import (
    BUNDLED,
    DIFFERENCES,
    MARKERS,
    Part,
    fused_layers,
    layers_by_name,
    spelled,
    split_name,
)
from dbcli.diffusion.formats.lora_writing import DIFFUSERS_METADATA_KEY
from dbcli.diffusion.formats.lycoris import ProductLayer, check_factors, rank_of
from dbcli.diffusion.formats.timestep_ranks import schedule_of
from dbcli.errors import BaseMissing, OtherBase, UnsafeFile, UnsupportedFile

HALVES: frozenset[Part] = frozenset({"down", "up"})
PartNames = dict[Part, str]


def read_lora(path: Path, base: Adaptable) -> LoraWeights:
    """Reads a LoRA in kohya's, diffusers', PEFT's or ComfyUI's names and fits it to a base without adapters.

    LoKr and LoHa as well, in LyCORIS' names or PEFT's, layer by layer, in any of their factorisations.

    Ranks come from the shapes; alphas from the file, or equal to the rank where it has none, which is how other
    tools read it too. Raises UnsupportedFile (another kind of adapter, or one for another base), BaseMissing (a part
    is missing) or UnsafeFile (it contradicts itself).
    """
    weights = open_weights(path)
    check_lora(weights)
    check_family(weights, base.family.title)
    shapes = {name: module_shapes(network) for name, network in base.tunable.items()}
    lookup, fused = layers_by_name(shapes, base), fused_layers(shapes, base)
    lora = LoraWeights({name: {} for name in shapes}, dict(weights.metadata), words=read_bundled(weights))
    parts, zeros = _parts_by_stem(weights)
    if zeros:
        lora.left_out.append(f"{zeros} differences that are zero")
    configs = adapter_configs(weights)
    is_pefts = any(name.startswith("base_model.model.") for name in weights.names())
    lora.says_strength = bool(configs) or not is_pefts or any("alpha" in names for names in parts.values())
    found, doubled = _by_module(weights, parts, lookup, lora), 0
    # Some trainers write a layer whole and divided: what is whole comes last, and gives way.
    for (network, module), names in sorted(found.items(), key=lambda one: one[0][1] in fused):
        config = configs.get(network)
        # In a UNet diffusers gives every layer of the file its adapter; transformers goes by the configuration.
        is_text = network in base.family.encoders
        if is_text and config is not None and not config.has_layer(_paths(module)):
            lora.left_out.append(f"the layer {network}.{module}, which its own {DIFFUSERS_METADATA_KEY} excludes")
            continue
        modules, layers = fused.get(module, (module,)), lora.part(network)
        if not layers.keys().isdisjoint(modules):
            doubled += 1
            continue
        outputs = [shapes[network][one][0] for one in modules]
        whole = _Layer(weights, module, names, (sum(outputs), *shapes[network][modules[0]][1:]))
        layer = whole.read(config, _paths(module) if is_text else (module,))
        layers.update(zip(modules, _divided(layer, outputs, module, path), strict=True))
    if doubled:
        lora.left_out.append(f"{doubled} layers in their original form, which are there in diffusers' as well")
    return _scheduled(lora, next(iter(shapes)), str(path))


def _divided(layer: Layer, outputs: list[int], name: str, file: Path) -> list[Layer]:
    """A layer by its rows, with the same lower half. Raises UnsupportedFile where it does not divide by them."""
    if len(outputs) == 1:
        return [layer]
    if not isinstance(layer, LoraLayer) or layer.by_input:
        what = "DoRA's magnitudes along the inputs" if layer.by_input else "the factors of a LoKr or LoHa"
        raise UnsupportedFile(
            f"{file} has {what} for {name}, which is {len(outputs)} layers of this base at once and cannot be divided.",
            hint="merge it into its base with the program that made it, and use that as the base",
        )
    ups = torch.split(layer.up, outputs)
    lengths: Sequence[torch.Tensor | None] = [None] * len(ups)
    if layer.magnitude is not None:
        lengths = torch.split(layer.magnitude, outputs)
    # Copies, as a file does not take tensors that share memory.
    return [replace(layer, up=up, magnitude=each).each(torch.clone) for up, each in zip(ups, lengths, strict=True)]


def _scheduled(lora: LoraWeights, denoiser: str, file: str) -> LoraWeights:
    """The same with the denoiser's ranks by timestep, where the file's metadata says so."""
    schedule = schedule_of(lora.metadata, file)
    if schedule is not None:
        layers = lora.part(denoiser)
        lora.parts[denoiser] = {
            name: replace(layer, schedule=schedule) if isinstance(layer, LoraLayer) else layer
            for name, layer in layers.items()
        }
    return lora


def _parts_by_stem(weights: WeightFile) -> tuple[dict[str, PartNames], int]:
    """Every layer as the file spells it, with the names of its parts; and how many differences are zero.

    Raises UnsupportedFile for a part that is none of a LoRA's, or a difference that is not zero.
    """
    found: dict[str, PartNames] = {}
    zeros = 0
    for name in weights.names():
        if name in MARKERS or BUNDLED.fullmatch(name):
            continue
        split = split_name(name)
        if split is None:
            raise UnsupportedFile(f"{weights.path} contains {name}, which is not part of a LoRA for Stable Diffusion.")
        stem, part = split
        if part in DIFFERENCES:
            _require_zero(weights, name, DIFFERENCES[part])
            zeros += 1
            continue
        names = found.setdefault(stem, {})
        if part in names:
            raise UnsafeFile(f"{weights.path} contains {name} twice under different names.")
        names[part] = name
    return found, zeros


def _require_zero(weights: WeightFile, name: str, what: str) -> None:
    if bool(weights.read(name).float().any()):
        raise UnsupportedFile(
            f"{weights.path} changes {what} too ({name}), which a run cannot hold; without them images would be wrong.",
            hint="merge it into its base with the program that made it, and use that as the base",
        )


def _by_module(
    weights: WeightFile, parts: Mapping[str, PartNames], lookup: Mapping[str, tuple[str, str]], lora: LoraWeights
) -> dict[tuple[str, str], PartNames]:
    """The parts of every layer of the base; a layer that the base lacks is left out where it changes nothing."""
    found: dict[tuple[str, str], PartNames] = {}
    for stem, names in parts.items():
        # PEFT's files of one network do not say which; what is no layer of the UNet may be one of the text encoder.
        network, _, inner = stem.partition(".")
        spellings = [stem, f"text_encoder.{inner}"] if network == "unet" else [stem]
        module = next((lookup[spelled(one)] for one in spellings if spelled(one) in lookup), None)
        if module is None:
            if _changes_nothing(weights, names):
                lora.left_out.append(f"the layer {inner}, which is zero")
                continue
            raise OtherBase(
                f"{weights.path} has a layer for {stem}, which this base does not have.",
                hint="Choose the base that the LoRA was trained on.",
            )
        if found.setdefault(module, {}).keys() & names.keys():
            raise UnsafeFile(f"{weights.path} contains the layer {'.'.join(module)} twice under different names.")
        found[module] |= names
    return found


def _changes_nothing(weights: WeightFile, names: PartNames) -> bool:
    halves = [names[half] for half in HALVES & names.keys()]
    return len(halves) == 2 and not all(bool(weights.read(name).float().any()) for name in halves)


def _paths(module: str) -> tuple[str, ...]:
    """How a configuration may spell a text encoder's layer: transformers before 5.6 kept the tower one level deeper."""
    return module, f"text_model.{module}"


@dataclass(frozen=True)
class _Layer:
    """One layer in a file: the names of its parts, and the shape of the weight that it is for."""

    weights: WeightFile
    module: str
    names: PartNames
    weight: tuple[int, ...]

    def read(self, config: AdapterConfig | None, paths: tuple[str, ...]) -> Layer:
        factors = [name for name in FACTORS if name in self.names]
        if factors:
            return self._product(factors, config, paths)
        if not self.names.keys() >= HALVES:
            raise BaseMissing(
                f"{self.weights.path}: the layer {self.module} has only one of its halves.",
                hint="Download it again; it may be incomplete.",
            )
        down, up = self._halves()
        check_layer(self.module, tuple(down.shape), tuple(up.shape), self.weight, str(self.weights.path))
        # Linear layers are sometimes stored as 1 × 1 convolutions.
        rank, kernel = down.shape[0], self.weight[2:]
        magnitude, by_input = self._magnitude(config)
        return LoraLayer(
            down.reshape(rank, down.shape[1], *kernel),
            up.reshape(up.shape[0], rank, *(1 for _ in kernel)),
            self._alpha(rank, config, paths),
            magnitude,
            by_input,
        )

    def _product(self, names: list[str], config: AdapterConfig | None, paths: tuple[str, ...]) -> ProductLayer:
        others = self.names.keys() - {*names, "alpha", "dora_scale"}
        if others or any(name in LOKR for name in names) and any(name in LOHA for name in names):
            mixed = ", ".join(sorted({*names, *others}))
            raise UnsafeFile(f"{self.weights.path}: the layer {self.module} is of several kinds at once ({mixed}).")
        for name in names:
            require_float(self.weights, self.names[name])
        factors = {name: self.weights.read(self.names[name]).float() for name in names}
        check_factors(self.module, factors, self.weight, str(self.weights.path))
        rank = rank_of(factors)
        if rank is None:
            # No alpha counts here, in LyCORIS and ComfyUI; in PEFT it does, and goes into the factors.
            strength = 1.0 if config is None else config.strength_of_whole(paths)
            factors["lokr_w2"] = factors["lokr_w2"] * strength
            alpha = 1.0
        else:
            alpha = self._alpha(rank, config, paths)
        magnitude, by_input = self._magnitude(config)
        return ProductLayer(factors, alpha, magnitude, by_input)

    def _halves(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both halves, float32; a Tucker core (`lora_mid`) is multiplied into the lower: none of the sum changes."""
        for half in HALVES:
            require_float(self.weights, self.names[half])
        down, up = (self.weights.read(self.names[half]).float() for half in ("down", "up"))
        if "mid" not in self.names:
            return down, up
        core = self.weights.read(self.names["mid"]).float()
        are_matrices = min(down.dim(), up.dim()) > 1 and math.prod(down.shape[2:]) == 1
        if not are_matrices or core.dim() != 4 or core.shape[:2] != (up.shape[1], down.shape[0]):
            raise UnsafeFile(
                f"{self.weights.path}: the core of {self.module}, {list(core.shape)}, does not fit its halves "
                f"({list(down.shape)}, {list(up.shape)})."
            )
        return torch.einsum("abkl,bi->aikl", core, down.flatten(1)), up

    def _alpha(self, rank: int, config: AdapterConfig | None, paths: tuple[str, ...]) -> float:
        declared = None if config is None else config.alpha(paths, rank)
        value = float(rank) if declared is None else declared
        if "scale" in self.names:
            value = self._number("scale") * rank
        elif "alpha" in self.names:
            value = self._number("alpha")
            if declared is not None and not math.isclose(declared, value, rel_tol=1e-3):
                raise UnsafeFile(
                    f"{self.weights.path} gives {self.module} the alpha {value:g}, but {declared:g} in its metadata."
                )
        return value

    def _number(self, part: Part) -> float:
        name = self.names[part]
        if math.prod(self.weights.shape(name)) != 1:
            raise UnsafeFile(f"{self.weights.path}: the {part} of {self.module} is not one number.")
        value = self.weights.read(name).float().item()
        if not math.isfinite(value):
            raise UnsafeFile(f"{self.weights.path}: the {part} of {self.module} is {value!r}.")
        return value

    def _magnitude(self, config: AdapterConfig | None) -> tuple[torch.Tensor | None, bool]:
        """DoRA's magnitudes, flat, and whether they are those of the inputs: told by which side of the shape is 1."""
        part = next((one for one in ("magnitude", "dora_scale") if one in self.names), None)
        declared = None if config is None else config.has_magnitudes
        if declared is not None and declared != (part is not None) and (part or declared):
            fault = "contains DoRA's magnitudes" if part else "lacks DoRA's magnitudes"
            kind = UnsafeFile if part else BaseMissing
            raise kind(f"{self.weights.path} {fault} for {self.module}; its metadata says use_dora: {declared}.")
        if part is None:
            return None, False
        name = self.names[part]
        shape, outputs, inputs = self.weights.shape(name), self.weight[0], self.weight[1]
        by_input = part == "dora_scale" and shape[:2] == (1, inputs) and len(shape) > 1
        if math.prod(shape) != (inputs if by_input else outputs):
            raise UnsafeFile(
                f"{self.weights.path}: the magnitudes of {self.module} have the shape {list(shape)}, "
                f"which fits neither its {outputs} outputs nor its {inputs} inputs."
            )
        return self.weights.read(name).float().reshape(-1), by_input
