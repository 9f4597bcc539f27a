"""The names of tensors in original Stable Diffusion checkpoints (the CompVis `ldm` layout), from diffusers' names.

The tables follow the two architectures: `openaimodel.UNetModel` numbers its blocks through, `AutoencoderKL` counts
its decoder backwards, and Stable Diffusion 2 carries OpenCLIP's text tower, whose attention is one stacked matrix.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dbcli.diffusion.files.weight_file import RenamedFile, WeightFile

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer.text_model."
OPEN_CLIP_PREFIX = "cond_stage_model.model."

_UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_MIDDLE = {
    "resnets.0": "middle_block.0",
    "attentions.0": "middle_block.1",
    "resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_TOP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_STACK_ORDER = ("q_proj", "k_proj", "v_proj")
# Beginnings that ComfyUI and merging tools give names, and as the original layout has them; the first that fits counts.
_OTHER_PREFIXES = (
    ("diffusion_model.", UNET_PREFIX),
    ("vae.", VAE_PREFIX),
    ("text_encoders.clip_l.", "cond_stage_model."),
    ("text_encoders.clip_h.", "cond_stage_model."),
    ("cond_stage_model.clip_l.", "cond_stage_model."),
    ("cond_stage_model.clip_h.", "cond_stage_model."),
    ("text_encoders.", "cond_stage_model."),
)


def unet_name(name: str, config: Mapping[str, Any]) -> str:
    """`down_blocks.0.resnets.1.conv1.weight` → `model.diffusion_model.input_blocks.2.0.in_layers.2.weight`."""
    stem, _, kind = name.rpartition(".")
    if stem in _UNET_TOP:
        return f"{UNET_PREFIX}{_UNET_TOP[stem]}.{kind}"
    words = name.split(".")
    if words[0] == "mid_block":
        return f"{UNET_PREFIX}{_UNET_MIDDLE['.'.join(words[1:3])]}.{_inner_unet_name(words[1], words[3:])}"
    index, group, stride = int(words[1]), words[2], int(config["layers_per_block"]) + 1
    if group == "downsamplers":
        return f"{UNET_PREFIX}input_blocks.{(index + 1) * stride}.0.op.{kind}"
    if group == "upsamplers":
        slot = 2 if "CrossAttn" in config["up_block_types"][index] else 1
        return f"{UNET_PREFIX}output_blocks.{index * stride + stride - 1}.{slot}.conv.{kind}"
    # The first of the input blocks is `conv_in`.
    half, first = ("input_blocks", 1) if words[0] == "down_blocks" else ("output_blocks", 0)
    number, slot = first + index * stride + int(words[3]), 0 if group == "resnets" else 1
    return f"{UNET_PREFIX}{half}.{number}.{slot}.{_inner_unet_name(group, words[4:])}"


def _inner_unet_name(group: str, words: Sequence[str]) -> str:
    if group != "resnets":
        return ".".join(words)
    return f"{_UNET_RESNET['.'.join(words[:-1])]}.{words[-1]}"


def vae_name(name: str, config: Mapping[str, Any]) -> str:
    """`decoder.up_blocks.0.resnets.1.conv1.weight` → `first_stage_model.decoder.up.3.block.1.conv1.weight`."""
    words = name.split(".")
    if words[0] not in ("encoder", "decoder"):
        return VAE_PREFIX + name
    half, rest = words[0], words[1:]
    if rest[0] == "conv_norm_out":
        rest = ["norm_out", *rest[1:]]
    elif rest[0] == "mid_block" and rest[1] == "resnets":
        rest = ["mid", f"block_{int(rest[2]) + 1}", *rest[3:]]
    elif rest[0] == "mid_block":
        layer = ".".join(rest[3:-1])
        rest = ["mid", "attn_1", _VAE_ATTENTION[layer], rest[-1]]
    elif rest[0] in ("down_blocks", "up_blocks"):
        rest = _vae_block(rest, len(config["block_out_channels"]))
    return VAE_PREFIX + ".".join([half, *("nin_shortcut" if word == "conv_shortcut" else word for word in rest)])


def _vae_block(rest: list[str], blocks: int) -> list[str]:
    down = rest[0] == "down_blocks"
    number = int(rest[1]) if down else blocks - 1 - int(rest[1])
    head = ["down" if down else "up", str(number)]
    if rest[2] == "resnets":
        return [*head, "block", *rest[3:]]
    return [*head, "downsample" if down else "upsample", *rest[4:]]


def open_clip_name(name: str) -> tuple[str, int | None]:
    """The text encoder of Stable Diffusion 2: the original name, and which third of a stacked matrix it is.

    `encoder.layers.0.self_attn.k_proj.weight` → (`…transformer.resblocks.0.attn.in_proj_weight`, 1).
    """
    if name in _OPEN_CLIP_TOP:
        return OPEN_CLIP_PREFIX + _OPEN_CLIP_TOP[name], None
    words = name.split(".")
    head, layer, kind = f"{OPEN_CLIP_PREFIX}transformer.resblocks.{words[2]}", ".".join(words[3:-1]), words[-1]
    if layer in _OPEN_CLIP_LAYER:
        return f"{head}.{_OPEN_CLIP_LAYER[layer]}.{kind}", None
    return f"{head}.attn.in_proj_{kind}", _STACK_ORDER.index(words[4])


def under_original_names(weights: WeightFile) -> RenamedFile:
    """A file whose names begin as in the original layout: `diffusion_model.…` becomes `model.diffusion_model.…`.

    Where two names would become one, the original stays.
    """
    present, stored = set(weights.names()), {}
    for name in weights.names():
        met, beginning = next((pair for pair in _OTHER_PREFIXES if name.startswith(pair[0])), ("", ""))
        original = beginning + name.removeprefix(met)
        stored[name if original in present else original] = name
    return RenamedFile(weights, stored)
