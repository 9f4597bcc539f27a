"""A LoRA in the one form that all its readers understand alike.

Readers differ in what they make of alpha: older diffusers and ComfyUI do not look for it in the header, and of a kohya
file diffusers takes one alpha for a whole text encoder. So what can be said in the weights is said there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch

from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights

OUTPUT = "self_attn.out_proj"


def for_diffusers(lora: LoraWeights) -> LoraWeights:
    """The same LoRA with alpha = rank everywhere and one rank a network: its strength is in `up`, and in nothing else.

    Readers that know no alpha, and those that take the first layer's rank for all layers' alpha, then agree. Where
    ranks differ, the smaller ones are filled up with zeros.
    """
    text = lora.text_encoder
    if text and not any(".self_attn." in name for name in text):
        # diffusers tells the format of a text encoder's LoRA by its attention layers alone.
        text = text | _empty_output(text)
    return replace(lora, unet=_alpha_in_weights(lora.unet), text_encoder=_alpha_in_weights(text))


def for_kohya(lora: LoraWeights) -> LoraWeights:
    """The same LoRA with one alpha a network, which is kept where the layers agree on it already.

    diffusers reads one alpha for all layers of a text encoder. Where none of them is an attention output, it leaves
    out the other attention layers or refuses the file, so that one output layer is written, empty.
    """
    text = lora.text_encoder
    if any(".self_attn." in name for name in text) and not any(name.endswith(OUTPUT) for name in text):
        text = text | _empty_output(text)
    return replace(lora, unet=_one_alpha(lora.unet), text_encoder=_one_alpha(text))


def commonest_alpha(layers: Mapping[str, LoraLayer]) -> float:
    """The alpha of most layers; layers of alpha 0 add nothing and are not asked, unless there are no others."""
    alphas = Counter(layer.alpha for layer in layers.values() if layer.alpha != 0)
    return alphas.most_common(1)[0][0] if alphas else 0.0


def _alpha_in_weights(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    most = max((layer.rank for layer in layers.values()), default=0)
    return {name: _filled(_rescaled(layer, float(layer.rank)), most) for name, layer in layers.items()}


def _one_alpha(layers: Mapping[str, LoraLayer]) -> dict[str, LoraLayer]:
    alpha = commonest_alpha(layers)
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
    """An attention output that adds nothing, in a block that has a layer already, like that layer in rank and alpha."""
    name, layer = next(iter(text.items()))
    block = ".".join(name.split(".")[:3])
    # All layers begin or end at the encoder's own width; the second of the MLP ends there.
    width = layer.up.shape[0] if name.endswith("fc2") else layer.down.shape[1]
    down, up = layer.down.new_zeros(layer.rank, width), layer.up.new_zeros(width, layer.rank)
    return {f"{block}.{OUTPUT}": LoraLayer(down, up, layer.alpha)}
