"""A base with every part of Stable Diffusion and hardly any weights: what is tested is what survives, not pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.bases.single_file import shipped_configs
from tests.diffusion import tiny_models

CHANGES: dict[str, dict[str, Any]] = {
    "unet": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
        "sample_size": 8,
    },
    "vae": {
        "block_out_channels": [4, 4, 4, 4],
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_size": 64,
    },
    "text_encoder": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 1,
        "projection_dim": 16,
        "vocab_size": 1024,
    },
}


def letter_tokenizer() -> Any:
    """CLIP's tokenizer with its letters alone: reading all 49,408 words would take longer than a training."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    whole = tiny_models.tokenizer().get_vocab()
    letters = sorted((word for word in whole if len(word.removesuffix("</w>")) == 1), key=whole.__getitem__)
    words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=words, merges=[], model_max_length=77)


def write_small_base(folder: Path, text_layers: int = 1, wider: Mapping[str, Any] | None = None) -> Path:
    """Writes the base as a diffusers folder, from a fixed seed; `wider` are changes of its parts' configurations."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs = shipped_configs("sd-v1")
    for component, changes in CHANGES.items():
        configs[component].update(changes | (wider or {}).get(component, {}))
    configs["text_encoder"]["num_hidden_layers"] = text_layers
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = {key: value for key, value in configs["text_encoder"].items() if key != "architectures"}
        CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder / "text_encoder")
        UNet2DConditionModel.from_config(configs["unet"]).save_pretrained(folder / "unet")
        AutoencoderKL.from_config(configs["vae"]).save_pretrained(folder / "vae")
    letter_tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(configs["scheduler"]), encoding="utf-8")
    return folder
