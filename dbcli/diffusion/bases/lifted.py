"""The embedded base as one of Stable Diffusion XL's kind, `tiny-xl`, worked out from its weights without a training.

XL's UNet reads the states of two text encoders side by side, the last but one of each, before the final layer norm;
that of Stable Diffusion 1 reads Y = norm(x), the normed states x of one. So here the first encoder is the embedded one
with a last layer that adds nothing: its last state but one is x. The second has a layer more, whose MLP adds Y: its
last state but one is x + Y. Keys and values are taken of the difference, (x + Y) - x = Y, with the embedded base's own
matrices, and what the UNet is told of pooled text and sizes begins at nothing. So both bases predict the same to the
last bits of their sums, and everything that XL has can learn.

As in XL the second encoder is the wider one, by which diffusers tells them apart in a file. It holds everything twice,
side by side: a norm of [x | x] is that of x, twice.

x is some sixteen times as large as Y, and what learns from it would learn so much faster. Norms do not see how large
their input is: everything that adds to x is divided by 32, and their epsilon by its square. Then the states are as
large as Y alone, and adapters of keys and values learn as fast as on the embedded base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dbcli.diffusion.bases.assembly import Entry, Parts
from dbcli.diffusion.families.sdxl import SDXL

# The MLP's activation is the identity far above zero; so far that nothing of it is left, and exact in binary.
SHIFT = 32.0
SCALE = 1 / 32
# What adds to the states: tables of tokens and places, and the ends of layers.
ENDS = ("self_attn.out_proj.weight", "self_attn.out_proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
ADDING = ("token_embedding.weight", "position_embedding.weight", *ENDS)
# Numbers that stand for a size in px or a crop's corner, and how wide each becomes.
TIME_IDS, TIME_WIDTH = 6, 32
LAYER = "encoder.layers.{}.{}"


def lifted(parts: Parts) -> Parts:
    """The parts of the embedded base as those of `tiny-xl`. The numbers are exact: they are the same on any machine."""
    configs = {name: dict(config) for name, config in parts.configs.items()}
    text, unet = configs["text_encoder"], configs["unet"]
    text["layer_norm_eps"] *= SCALE**2
    layers, width = text["num_hidden_layers"], text["hidden_size"]
    tensors = _text_tensors(parts.entries["text_encoder"])
    first, second = _Text(tensors, layers), _Text({name: _twice(name, one) for name, one in tensors.items()}, layers)
    tables = {
        "text_encoder": first.with_idle_layer(layers),
        "text_encoder_2": second.with_normed_layer(layers) | {"text_projection.weight": torch.eye(2 * width)},
        "unet": _unet(parts.entries["unet"], unet, 2 * width),
    }
    configs["text_encoder"] = text | {"num_hidden_layers": layers + 1}
    configs["text_encoder_2"] = text | {
        "num_hidden_layers": layers + 2,
        "hidden_size": 2 * width,
        "intermediate_size": 2 * text["intermediate_size"],
        "num_attention_heads": 2 * text["num_attention_heads"],
        "projection_dim": 2 * width,
        "architectures": [SDXL.parts["text_encoder_2"].class_name],
    }
    configs["unet"] = unet | {
        "cross_attention_dim": 3 * width,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": TIME_IDS * TIME_WIDTH + 2 * width,
    }
    # The embedded base learnt what an empty prompt is, and nothing of zeros.
    configs["index"] = {"force_zeros_for_empty_prompt": False}
    entries = {name: {key: _entry(tensor) for key, tensor in table.items()} for name, table in tables.items()}
    tokenizers = dict.fromkeys(SDXL.encoders, parts.tokenizers["text_encoder"])
    return Parts(
        SDXL,
        configs,
        {**entries, "vae": parts.entries["vae"]},
        parts.files,
        tokenizers,
        parts.source,
        parts.notes,
        parts.small_files,
    )


def _text_tensors(entries: Mapping[str, Entry]) -> dict[str, torch.Tensor]:
    return {
        name: entry.read().float() * (SCALE if name.endswith(ADDING) else 1.0)
        for name, entry in entries.items()
        if "position_ids" not in name
    }


def _twice(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of a text encoder that holds everything twice: layers side by side, tables and norms one after
    another."""
    if tensor.ndim == 2 and "_embedding." not in name:
        twice: torch.Tensor = torch.block_diag(tensor, tensor)
        return twice
    return torch.cat([tensor, tensor], dim=-1)


class _Text:
    """A text encoder by its tensors, with further layers."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], layers: int) -> None:
        last = LAYER.format(layers - 1, "")
        self.tensors = tensors
        self.last = {name.removeprefix(last): one for name, one in tensors.items() if name.startswith(last)}

    def with_idle_layer(self, number: int) -> dict[str, torch.Tensor]:
        """With a layer `number` that is like the last one and adds nothing."""
        idle = {
            LAYER.format(number, name): torch.zeros_like(tensor) if name in ENDS else tensor.clone()
            for name, tensor in self.last.items()
        }
        return {name: tensor.clone() for name, tensor in self.tensors.items()} | idle

    def with_normed_layer(self, number: int) -> dict[str, torch.Tensor]:
        """With a layer `number` that adds the final norm of what comes to it, and an idle one behind it.

        fc2(act(fc1(n))) = g (n + s) + (b - g s) = g n + b, where n is normed, s the shift, g and b the final norm's.
        """
        scale, bias = self.tensors["final_layer_norm.weight"], self.tensors["final_layer_norm.bias"]
        width = len(scale)
        normed = {
            name: torch.zeros_like(tensor) if name in ENDS else tensor.clone() for name, tensor in self.last.items()
        }
        normed["layer_norm2.weight"], normed["layer_norm2.bias"] = torch.ones(width), torch.zeros(width)
        inner = torch.zeros_like(normed["mlp.fc1.weight"])
        inner[:width] = torch.eye(width)
        shift = torch.zeros_like(normed["mlp.fc1.bias"])
        shift[:width] = SHIFT
        normed["mlp.fc1.weight"], normed["mlp.fc1.bias"] = inner, shift
        normed["mlp.fc2.weight"][:, :width] = torch.diag(scale)
        normed["mlp.fc2.bias"] = bias - SHIFT * scale
        layer = {LAYER.format(number, name): tensor for name, tensor in normed.items()}
        return self.with_idle_layer(number + 1) | layer


def _unet(entries: Mapping[str, Entry], config: Mapping[str, Any], pooled: int) -> dict[str, torch.Tensor]:
    """The UNet whose keys and values are of a difference, and which is told more than it heeds."""
    tensors = {name: entry.read().float() for name, entry in entries.items()}
    for name, tensor in tensors.items():
        if ".attn2.to_k." in name or ".attn2.to_v." in name:
            tensors[name] = torch.cat([-tensor, tensor / 2, tensor / 2], dim=1)
    added, inner = TIME_IDS * TIME_WIDTH + pooled, 4 * config["block_out_channels"][0]
    tensors["add_embedding.linear_1.weight"] = _scattered(inner, added)
    tensors["add_embedding.linear_2.weight"] = torch.zeros(inner, inner)
    for layer in ("linear_1", "linear_2"):
        tensors[f"add_embedding.{layer}.bias"] = torch.zeros(inner)
    return tensors


def _scattered(outputs: int, inputs: int) -> torch.Tensor:
    """Weights like those that a layer begins with, in +-1 / sqrt(inputs) and without a random generator.

    Each is a whole number of 1 / 65536, by multiplication modulo 2**16: the same bits on any machine.
    """
    numbers = torch.arange(1, outputs * inputs + 1, dtype=torch.int64)
    mixed = (numbers * 40_503 + (numbers * numbers) % 65_521 * 30_011) % 65_536
    side = 2 ** -((inputs - 1).bit_length() // 2)
    weights: torch.Tensor = (mixed.float() / 32_768 - 1) * side
    return weights.view(outputs, inputs)


def _entry(tensor: torch.Tensor) -> Entry:
    return Entry(tuple(tensor.shape), lambda: tensor, tensor.dtype)
