"""Random models and photos to measure on: the shapes of Stable Diffusion v1 at a width that two cores can train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# A UNet of 18 M values and an autoencoder of v1's kind at 128 px; v1's own text encoder, narrow.
UNET = {
    "sample_size": 16,
    "block_out_channels": [64, 128, 256],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 256,
    "attention_head_dim": 8,
}
VAE = {
    "block_out_channels": [32, 64, 128, 128],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "sample_size": 128,
    "norm_num_groups": 16,
}
TEXT = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 6}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def write_base(folder: Path, *, seed: int = 0) -> Path:
    """Writes a random base as a diffusers folder that every trainer can load; returns the folder."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from dbcli.diffusion.bases import embedded_folder
    from dbcli.diffusion.formats.diffusers_folder import write_diffusers_folder

    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(str(embedded_folder() / "tokenizer"), model_max_length=77)
    text: dict[str, Any] = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    write_diffusers_folder(
        folder,
        unet=UNet2DConditionModel(**UNET),
        vae=AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT, **text, hidden_act="quick_gelu")),
        tokenizer=tokenizer,
        scheduler_config=SCHEDULER,
        dtype=torch.float32,
    )
    return folder


def write_pictures(folder: Path, count: int, *, size_px: int, seed: int) -> Path:
    """Writes pictures of smooth noise as PNG files; returns the folder."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for number in range(count):
        coarse = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.png")
    return folder
