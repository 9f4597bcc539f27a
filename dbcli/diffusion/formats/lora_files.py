"""LoRA files in: kohya's names (which AUTOMATIC1111 and ComfyUI write) and diffusers' names.

Read with a base at hand, so that each name is looked up among the base's own layers and never guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbcli.diffusion.formats import original_names
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, check_layer, module_shapes
from dbcli.diffusion.formats.lora_writing import DIFFUSERS_METADATA_KEY
from dbcli.diffusion.model_files import WeightFile, open_weights
from dbcli.errors import BaseMissing, UnsafeFile

KOHYA_PREFIXES = {"unet": ("lora_unet_",), "text_encoder": ("lora_te_", "lora_te1_")}

# How diffusers of 2023 spelled the halves; a name is cut at the first of these.
HALVES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
    ".dora_scale": "magnitude",
    ".alpha": "alpha",
}
OTHER_KINDS = {"hada_": "LoHa", "lokr_": "LoKr", "oft_": "OFT", "lora_mid": "LoCon with a Tucker core"}


def read_lora(path: Path, *, unet: Any, text_encoder: Any) -> LoraWeights:
    """Reads a LoRA in kohya's, diffusers' or PEFT's names and fits it to these networks (without adapters).

    Ranks come from the shapes; alphas from the file, or equal to the rank where it has none, which is how other
    tools read it too. Raises BaseMissing (not a LoRA, or one for another base) or UnsafeFile.
    """
    weights = open_weights(path)
    _check_kind(weights)
    shapes = {"unet": module_shapes(unet), "text_encoder": module_shapes(text_encoder)}
    lookup = _lookup(shapes, unet.config)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in weights.names():
        stem, half = _split(name, path)
        module = lookup.get(_key(stem))
        if module is None:
            raise BaseMissing(
                f"{path} has a layer for {stem}, which this base does not have.",
                hint="Choose the base that the LoRA was trained on.",
            )
        if half in found.setdefault(module, {}):
            raise UnsafeFile(f"{path} holds {name} twice under different names.")
        found[module][half] = name
    defaults = _declared_alphas(weights)
    lora = LoraWeights({}, {}, dict(weights.metadata))
    for (part, module), names in found.items():
        layer = _read_layer(weights, module, names, shapes[part][module], defaults.get(part, {}))
        lora.part(part)[module] = layer
    return lora


def _check_kind(weights: WeightFile) -> None:
    names = weights.names()
    for mark, kind in OTHER_KINDS.items():
        if any(mark in name for name in names):
            raise BaseMissing(f"{weights.path} is a {kind}; only plain LoRA and DoRA can be read.")
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in names):
        raise BaseMissing(f"{weights.path} is a LoRA for Stable Diffusion XL.")
    if not any("lora" in name for name in names):
        raise BaseMissing(f"{weights.path} is not a LoRA.")


def _lookup(shapes: Mapping[str, Mapping[str, Any]], unet_config: Any) -> dict[str, tuple[str, str]]:
    """From every spelling of a layer, dots and underscores made alike, to (network, module path)."""
    table = {}
    for module in shapes["unet"]:
        table[_key(f"unet.{module}")] = ("unet", module)
        # Some trainers kept the block numbers of the original layout.
        original = original_names.unet_name(f"{module}.weight", unet_config)
        original = original.removeprefix(original_names.UNET_PREFIX).removesuffix(".weight")
        table.setdefault(_key(f"unet.{original}"), ("unet", module))
    for module in shapes["text_encoder"]:
        for prefix in ("text_encoder.", "text_encoder.text_model."):
            table[_key(prefix + module)] = ("text_encoder", module)
    return table


def _key(stem: str) -> str:
    return stem.replace(".", "_")


def _split(name: str, path: Path) -> tuple[str, str]:
    """`lora_te_text_model_…_q_proj.alpha` → (`text_encoder.text_model_…_q_proj`, `alpha`)."""
    ending = next((ending for ending in HALVES if name.endswith(ending)), None)
    if ending is None:
        raise UnsafeFile(f"{path} holds {name}, which is no part of a LoRA.")
    stem, half = name[: -len(ending)], HALVES[ending]
    stem = stem.removeprefix("base_model.model.").replace(".processor", "")
    for part, prefixes in KOHYA_PREFIXES.items():
        for prefix in prefixes:
            if stem.startswith(prefix):
                return f"{part}.{stem.removeprefix(prefix)}", half
    if not stem.startswith(("unet.", "text_encoder.")):
        stem = f"unet.{stem}"
    # Old names end in `to_out_lora` where the layer is `to_out.0`, and `to_q_lora` in the text encoder is `q_proj`.
    if "_lora." in name:
        stem = _old_name(stem)
    return stem, half


def _old_name(stem: str) -> str:
    if stem.startswith("text_encoder."):
        head, _, last = stem.rpartition(".")
        return f"{head}.{last.removeprefix('to_')}_proj"
    return f"{stem}.0" if stem.endswith("to_out") else stem


def _declared_alphas(weights: WeightFile) -> dict[str, dict[str, Any]]:
    """What diffusers wrote about ranks and alphas, by network; nothing where it is absent or unreadable."""
    text = weights.metadata.get(DIFFUSERS_METADATA_KEY)
    if text is None:
        return {}
    try:
        table = json.loads(text)
        declared: dict[str, dict[str, Any]] = {}
        for key, value in table.items():
            part, _, name = key.partition(".")
            declared.setdefault(part, {})[name] = value
        return declared
    except (ValueError, AttributeError, RecursionError):
        return {}


def _read_layer(
    weights: WeightFile,
    module: str,
    names: Mapping[str, str],
    weight: tuple[int, ...],
    declared: Mapping[str, Any],
) -> LoraLayer:
    if not {"down", "up"} <= set(names):
        raise UnsafeFile(f"{weights.path}: the layer {module} has only one of its halves.")
    down, up = weights.shape(names["down"]), weights.shape(names["up"])
    check_layer(module, down, up, weight, str(weights.path))
    alpha = _alpha(weights, module, names, rank=down[0], declared=declared)
    magnitude = None
    if "magnitude" in names:
        if math.prod(weights.shape(names["magnitude"])) != weight[0]:
            raise UnsafeFile(f"{weights.path}: the lengths of {module} do not fit its {weight[0]} outputs.")
        magnitude = weights.read(names["magnitude"]).float().reshape(-1)
    # Linear layers are sometimes stored as 1 × 1 convolutions.
    rank, inputs, outputs = down[0], down[1], up[0]
    down_shape, up_shape = (rank, inputs, *weight[2:]), (outputs, rank, *(1 for _ in weight[2:]))
    return LoraLayer(
        weights.read(names["down"]).float().reshape(down_shape),
        weights.read(names["up"]).float().reshape(up_shape),
        alpha,
        magnitude,
    )


def _alpha(
    weights: WeightFile, module: str, names: Mapping[str, str], *, rank: int, declared: Mapping[str, Any]
) -> float:
    value: Any = rank
    if "alpha" in names:
        if math.prod(weights.shape(names["alpha"])) != 1:
            raise UnsafeFile(f"{weights.path}: the alpha of {module} is not one number.")
        value = weights.read(names["alpha"]).float().item()
    elif "lora_alpha" in declared:
        exceptions = declared.get("alpha_pattern") or {}
        spelled = (module, f"text_model.{module}")
        value = next((exceptions[name] for name in spelled if name in exceptions), declared["lora_alpha"])
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UnsafeFile(f"{weights.path}: the alpha of {module} is {value!r}.")
    return float(value)
