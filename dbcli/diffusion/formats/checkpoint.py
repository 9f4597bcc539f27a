"""Writes one `.safetensors` file in the original Stable Diffusion layout, for ComfyUI, AUTOMATIC1111 and the like."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.bases.single_file import METADATA_KEY
from dbcli.diffusion.families.family import Part
from dbcli.diffusion.files.writing import save_tensors
from dbcli.diffusion.formats.diffusers_folder import Model
from dbcli.diffusion.schedulers.prediction import marks

CLIP_VOCABULARY_SIZE = 49408
PLACES = "embeddings.position_embedding.weight"


def write_checkpoint(
    path: Path, model: Model, *, dtype: torch.dtype = torch.float16, metadata: Mapping[str, str] | None = None
) -> list[str]:
    """Writes a model's networks under their original names and returns those names.

    Tokens that were added to the vocabulary have no place in this layout and are left out. The exact configuration
    goes into the metadata, so that this program reads back any width; other programs ignore it. A base that predicts v
    is marked by empty tensors, as other programs expect it of Stable Diffusion 1.
    """
    tensors = original_tensors(model)
    tensors |= {mark: torch.empty(0) for mark in marks(model.scheduler_config)}
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    configs = {
        **{name: _config(part, model.networks[name]) for name, part in model.family.parts.items()},
        "scheduler": dict(model.scheduler_config),
        "max_tokens": model.max_tokens,
    }
    for key, tokenizer in zip(("pad_token", "pad_token_2"), model.tokenizers.values(), strict=False):
        configs[key] = str(tokenizer.pad_token)
    if model.family.encoders[1:]:
        configs["index"] = {"force_zeros_for_empty_prompt": model.zero_negative}
    text = json.dumps(configs, sort_keys=True, default=str)
    save_tensors(path, tensors, {**(metadata or {}), METADATA_KEY: text})
    return sorted(tensors)


def original_tensors(model: Model) -> dict[str, torch.Tensor]:
    """A model's tensors by original name and in their original shape."""
    configs = {name: _config(part, model.networks[name]) for name, part in model.family.parts.items()}
    tensors: dict[str, torch.Tensor] = {}
    thirds: dict[str, dict[int, torch.Tensor]] = {}
    for part in model.family.parts:
        for name, tensor in _stored(model, part).items():
            original = model.family.original(part, name, configs)
            if original.third is None:
                tensors[original.name] = tensor.T.contiguous() if original.transposed else tensor
            else:
                thirds.setdefault(original.name, {})[original.third] = tensor
            if original.name.endswith(PLACES):
                # Published files carry the position numbers, and older tools complain where they are missing.
                numbers = original.name.replace(PLACES, "embeddings.position_ids")
                tensors[numbers] = torch.arange(len(tensor)).unsqueeze(0)
    tensors |= {name: torch.cat([parts[0], parts[1], parts[2]]) for name, parts in thirds.items()}
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _stored(model: Model, part: str) -> dict[str, torch.Tensor]:
    """A network's tensors without the prefix `text_model.`, as the original layout has them in shape.

    1 × 1 convolutions of the VAE's attention are convolutions, and the vocabulary is cut to CLIP's own.
    """
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in model.networks[part].state_dict().items()}
    kind = model.family.parts[part].kind
    if kind == "text":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
        table = "embeddings.token_embedding.weight"
        tensors[table] = tensors[table][: _vocabulary(model.networks[part])]
    if kind == "vae":
        for name, tensor in tensors.items():
            if ".attentions." in name and name.endswith(".weight") and "group_norm" not in name:
                tensors[name] = tensor.reshape(*tensor.shape[:2], 1, 1)
    return tensors


def _vocabulary(text_encoder: Any) -> int:
    return min(int(text_encoder.config.vocab_size), CLIP_VOCABULARY_SIZE)


def _config(part: Part, network: Any) -> dict[str, Any]:
    if part.kind == "text":
        return {**network.config.to_dict(), "vocab_size": _vocabulary(network)}
    return _plain(network.config)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dict(config).items() if key != "_name_or_path"}
