"""Writes one `.safetensors` file in the original Stable Diffusion layout, for ComfyUI, AUTOMATIC1111 and the like."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.bases.single_file import METADATA_KEY
from dbcli.diffusion.files import original_names as names
from dbcli.diffusion.files.writing import save_tensors
from dbcli.diffusion.formats.diffusers_folder import Model
from dbcli.diffusion.schedulers.prediction import marks

CLIP_VOCABULARY_SIZE = 49408
POSITION_IDS = f"{names.CLIP_PREFIX}embeddings.position_ids"


def write_checkpoint(
    path: Path, model: Model, *, dtype: torch.dtype = torch.float16, metadata: Mapping[str, str] | None = None
) -> list[str]:
    """Writes the three networks of a model under their original names and returns those names.

    Tokens that were added to the vocabulary have no place in this layout and are left out. The exact configuration
    goes into the metadata, so that this program reads back any width; other programs ignore it. A base that predicts v
    is marked by empty tensors, as other programs expect it of Stable Diffusion 1.
    """
    text_encoder = model.text_encoder
    tensors = original_tensors(unet=model.unet, vae=model.vae, text_encoder=text_encoder)
    tensors |= {mark: torch.empty(0) for mark in marks(model.scheduler_config)}
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    configs = {
        "unet": _plain(model.unet.config),
        "vae": _plain(model.vae.config),
        "text_encoder": {**text_encoder.config.to_dict(), "vocab_size": _vocabulary(text_encoder)},
        "scheduler": dict(model.scheduler_config),
        "max_tokens": model.max_tokens,
        "pad_token": str(model.tokenizer.pad_token),
    }
    text = json.dumps(configs, sort_keys=True, default=str)
    save_tensors(path, tensors, {**(metadata or {}), METADATA_KEY: text})
    return sorted(tensors)


def original_tensors(*, unet: Any, vae: Any, text_encoder: Any) -> dict[str, torch.Tensor]:
    """The networks' tensors by original name, 1 × 1 convolutions of the VAE's attention in their original shape."""
    tensors = {names.unet_name(name, unet.config): tensor for name, tensor in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        if ".attentions." in name and name.endswith(".weight") and "group_norm" not in name:
            tensor = tensor.reshape(*tensor.shape[:2], 1, 1)
        tensors[names.vae_name(name, vae.config)] = tensor
    if unet.config.use_linear_projection:
        tensors |= _open_clip_tensors(text_encoder)
    else:
        tensors |= _clip_tensors(text_encoder)
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _text_tensors(text_encoder: Any) -> dict[str, torch.Tensor]:
    """The text encoder's tensors without the prefix `text_model.`, the vocabulary cut to CLIP's own."""
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    table = "embeddings.token_embedding.weight"
    tensors[table] = tensors[table][: _vocabulary(text_encoder)]
    return tensors


def _vocabulary(text_encoder: Any) -> int:
    return min(int(text_encoder.config.vocab_size), CLIP_VOCABULARY_SIZE)


def _clip_tensors(text_encoder: Any) -> dict[str, torch.Tensor]:
    tensors = {names.CLIP_PREFIX + name: tensor for name, tensor in _text_tensors(text_encoder).items()}
    # Published files carry the position numbers, and older tools complain where they are missing.
    tensors[POSITION_IDS] = torch.arange(text_encoder.config.max_position_embeddings).unsqueeze(0)
    return tensors


def _open_clip_tensors(text_encoder: Any) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    thirds: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in _text_tensors(text_encoder).items():
        original, third = names.open_clip_name(name)
        if third is None:
            tensors[original] = tensor
        else:
            thirds.setdefault(original, {})[third] = tensor
    return tensors | {name: torch.cat([parts[0], parts[1], parts[2]]) for name, parts in thirds.items()}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dict(config).items() if key != "_name_or_path"}
