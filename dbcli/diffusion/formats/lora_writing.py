"""LoRA files out: kohya's names (which ComfyUI, AUTOMATIC1111 and InvokeAI read) and diffusers' names.

Readers differ in what they make of alpha: older diffusers and ComfyUI do not look for it in the header, and of a kohya
file diffusers takes one alpha for a whole text encoder. So what can be said in the weights is said there: `for_kohya`
and `for_diffusers` give the one form that all readers understand alike.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.families.family import Configs, Family
from dbcli.diffusion.files.writing import save_tensors
from dbcli.diffusion.formats.lora import Adaptable, Layer, LoraLayer, LoraWeights, lora_to_peft
from dbcli.diffusion.formats.lycoris import ProductLayer, strength_in_factor, without_core
from dbcli.diffusion.formats.text_names import is_projection, name_in_files

DIFFUSERS_METADATA_KEY = "lora_adapter_metadata"
OUTPUT = "self_attn.out_proj"


def write_kohya_lora(
    path: Path,
    lora: LoraWeights,
    family: Family,
    *,
    configs: Configs | None = None,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes a LoRA under kohya's names with each layer's own alpha; returns the names.

    `configs` are the base's: without them the layers of a UNet have diffusers' block numbers in every family.
    """
    tensors: dict[str, torch.Tensor] = {}
    for part in family.tunable:
        for name, layer in lora.part(part).items():
            stem = _kohya_stem(family, part, name, configs or {})
            tensors |= {f"{stem}.{ending}": tensor.to(dtype) for ending, tensor in _kohya_tensors(layer).items()}
            tensors[f"{stem}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
            if layer.magnitude is not None:
                tensors[f"{stem}.dora_scale"] = _column(layer).to(dtype)
    save_tensors(path, tensors, metadata or {})
    return sorted(tensors)


def _kohya_stem(family: Family, part: str, layer: str, configs: Configs) -> str:
    start, own = family.parts[part].kohya, family.kohya_name(part, layer, configs)
    own = name_in_files(own) if part in family.encoders else own
    return start + (own if start.endswith(".") else own.replace(".", "_"))


def _kohya_tensors(layer: Layer) -> dict[str, torch.Tensor]:
    if isinstance(layer, ProductLayer):
        return layer.factors
    return {"lora_down.weight": layer.down, "lora_up.weight": layer.up}


def _column(layer: Layer) -> torch.Tensor:
    """LyCORIS keeps DoRA's magnitudes as `[out, 1]`, or `[1, in]` for those of the inputs, with ones for a kernel."""
    assert layer.magnitude is not None
    sizes = [1] * (layer.down.dim() if isinstance(layer, LoraLayer) else 2)
    sizes[1 if layer.by_input else 0] = -1
    return layer.magnitude.reshape(sizes)


def write_diffusers_lora(
    path: Path,
    lora: LoraWeights,
    base: Adaptable,
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes a LoRA for `pipeline.load_lora_weights`, alpha in its metadata; returns the names."""
    tensors: dict[str, torch.Tensor] = {}
    configs: dict[str, Any] = {}
    for part, (config, halves) in lora_to_peft(lora, base.tunable).items():
        is_text = part in base.family.encoders
        for name, tensor in halves.items():
            tensors[f"{part}.{name_in_files(name) if is_text else name}"] = tensor.to(dtype)
        configs |= {f"{part}.{key}": value for key, value in config.items()}
    text = json.dumps(configs, indent=2, sort_keys=True)
    save_tensors(path, tensors, {**(metadata or {}), DIFFUSERS_METADATA_KEY: text})
    return sorted(tensors)


def for_diffusers(lora: LoraWeights) -> LoraWeights:
    """The same LoRA with alpha = rank everywhere and one rank a network: its strength is in `up`, and in nothing else.

    Readers that know no alpha, and those that take the first layer's rank for all layers' alpha, then agree. Where
    ranks differ, the smaller ones are filled up with zeros. LoKr and LoHa have their strength in a factor likewise.
    """

    def whole(layers: dict[str, LoraLayer]) -> dict[str, LoraLayer]:
        if _is_of_text(layers) and not any(".self_attn." in name for name in layers):
            # diffusers tells the format of a text encoder's LoRA by its attention layers alone.
            layers = layers | _empty_output(layers)
        return _alpha_in_weights(layers)

    return _for_readers(lora, whole)


def for_kohya(lora: LoraWeights) -> LoraWeights:
    """The same LoRA with one alpha a network, which is kept where the layers agree on it already.

    diffusers reads one alpha for all layers of a text encoder. Where none of them is an attention output, it leaves
    out the other attention layers or refuses the file, and it refuses the projection alone, so that one output layer
    is written, empty. LoKr and LoHa get alpha = rank, since LyCORIS 4.1 applies alpha / rank twice where it merges; and
    a LoKr's cores are multiplied into their factors, since neither LyCORIS 4.1 nor ComfyUI 0.3 reads them.
    """

    def whole(layers: dict[str, LoraLayer]) -> dict[str, LoraLayer]:
        needs_output = any(".self_attn." in name for name in layers) or all(is_projection(name) for name in layers)
        if layers and needs_output and not any(name.endswith(OUTPUT) for name in layers):
            layers = layers | _empty_output(layers)
        return _one_alpha(layers)

    return _for_readers(lora, whole)


def _for_readers(lora: LoraWeights, change: Callable[[dict[str, LoraLayer]], dict[str, LoraLayer]]) -> LoraWeights:
    """Changes the plain layers; a file that has layers of LoKr or LoHa is for other readers than those it is for."""

    def changed(layers: dict[str, Layer]) -> dict[str, Layer]:
        plain = {name: layer for name, layer in layers.items() if isinstance(layer, LoraLayer)}
        if len(plain) == len(layers):
            return {**change(plain)}
        return {
            name: layer if isinstance(layer, LoraLayer) else strength_in_factor(without_core(layer))
            for name, layer in layers.items()
        }

    return lora.changed(changed)


def _is_of_text(layers: Mapping[str, LoraLayer]) -> bool:
    """Whether layers are those of a CLIP text encoder: the projection, or in the blocks of `encoder.layers`."""
    return any(name.startswith("encoder.layers.") or is_projection(name) for name in layers)


def _alpha_in_weights(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    most = max((layer.rank for layer in layers.values()), default=0)
    return {name: _filled(_rescaled(layer, float(layer.rank)), most) for name, layer in layers.items()}


def _one_alpha(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    """All layers on the alpha of most; layers of alpha 0 add nothing and are not asked, unless there are no others."""
    alphas = Counter(layer.alpha for layer in layers.values() if layer.alpha != 0)
    alpha = alphas.most_common(1)[0][0] if alphas else 0.0
    return {name: layer if alpha == 0 else _rescaled(layer, alpha) for name, layer in layers.items()}


def _rescaled(layer: LoraLayer, alpha: float) -> LoraLayer:
    """The same addition with another alpha: (alpha / rank) · up stays what it is."""
    return layer if layer.alpha == alpha else replace(layer, up=layer.up * (layer.alpha / alpha), alpha=alpha)


def _filled(layer: LoraLayer, rank: int) -> LoraLayer:
    """A layer of alpha = rank with as many more rows in `down` and columns in `up`, all zero."""
    missing = rank - layer.rank
    if missing == 0:
        return layer
    down = torch.cat([layer.down, layer.down.new_zeros(missing, *layer.down.shape[1:])])
    up = torch.cat([layer.up, layer.up.new_zeros(layer.up.shape[0], missing, *layer.up.shape[2:])], dim=1)
    return replace(layer, down=down, up=up, alpha=float(rank))


def _empty_output(text: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    """An attention output that adds nothing, like another layer in rank and alpha, in the first block that has one."""
    name, layer = min(text.items(), key=lambda one: is_projection(one[0]))
    block = "encoder.layers.0" if is_projection(name) else ".".join(name.split(".")[:3])
    # All layers begin or end at the encoder's own width; the second of the MLP ends there.
    width = layer.up.shape[0] if name.endswith("fc2") else layer.down.shape[1]
    down, up = layer.down.new_zeros(layer.rank, width), layer.up.new_zeros(width, layer.rank)
    return {f"{block}.{OUTPUT}": LoraLayer(down, up, layer.alpha)}
