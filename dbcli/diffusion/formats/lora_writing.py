"""LoRA files out: kohya's names (which ComfyUI, AUTOMATIC1111 and InvokeAI read) and diffusers' names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.files.writing import save_tensors
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, lora_to_peft

DIFFUSERS_METADATA_KEY = "lora_adapter_metadata"


def write_kohya_lora(
    path: Path,
    lora: LoraWeights,
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes a LoRA under kohya's names with each layer's own alpha; returns the names."""
    tensors: dict[str, torch.Tensor] = {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        for name, layer in lora.part(part).items():
            stem = prefix + name.replace(".", "_")
            tensors[f"{stem}.lora_down.weight"] = layer.down.to(dtype)
            tensors[f"{stem}.lora_up.weight"] = layer.up.to(dtype)
            tensors[f"{stem}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
            if layer.magnitude is not None:
                tensors[f"{stem}.dora_scale"] = _column(layer).to(dtype)
    save_tensors(path, tensors, metadata or {})
    return sorted(tensors)


def _column(layer: LoraLayer) -> torch.Tensor:
    """LyCORIS keeps DoRA's magnitudes as `[out, 1]`, or `[1, in]` for those of the inputs, with ones for a kernel."""
    assert layer.magnitude is not None
    sizes = [1] * layer.down.dim()
    sizes[1 if layer.by_input else 0] = -1
    return layer.magnitude.reshape(sizes)


def write_diffusers_lora(
    path: Path,
    lora: LoraWeights,
    *,
    unet: Any,
    text_encoder: Any,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes a LoRA for `pipeline.load_lora_weights`, alpha in its metadata; returns the names."""
    tensors: dict[str, torch.Tensor] = {}
    configs: dict[str, Any] = {}
    for part, peft in lora_to_peft(lora, unet, text_encoder).items():
        # Text encoder layers carry `text_model.` whatever the library here calls them: others look for it.
        inner = "text_model." if part == "text_encoder" else ""
        for name, tensor in peft.tensors.items():
            tensors[f"{part}.{inner}{name.removeprefix('text_model.')}"] = tensor.to(dtype)
        configs |= {f"{part}.{key}": value for key, value in peft.config.items()}
    text = json.dumps(configs, indent=2, sort_keys=True)
    save_tensors(path, tensors, {**(metadata or {}), DIFFUSERS_METADATA_KEY: text})
    return sorted(tensors)
