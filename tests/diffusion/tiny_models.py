"""Small Stable Diffusion models with random weights, written by diffusers and transformers themselves.

They have every block and layer of the real architectures, hence the real names, at a small width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.bases.folder import embedded_folder
from dbcli.diffusion.bases.single_file import shipped_configs, shipped_tokenizer
from dbcli.diffusion.families.family import Family
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.families.sdxl import SDXL

NARROW = {
    "unet": {"block_out_channels": [32, 64, 96, 96], "cross_attention_dim": 64, "sample_size": 8},
    "vae": {"block_out_channels": [32, 64, 96, 96], "sample_size": 64},
    "text_encoder": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 1,
        "projection_dim": 64,
    },
}


# The second text encoder of XL is the wider one, and its UNet reads both side by side.
NARROW_XL = {
    "unet": {
        "block_out_channels": [32, 64, 96],
        "cross_attention_dim": 64 + 96,
        "attention_head_dim": [1, 1, 1],
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 96,
        "sample_size": 8,
    },
    "text_encoder_2": {"hidden_size": 96, "intermediate_size": 96, "num_attention_heads": 1, "projection_dim": 96},
}


def narrow_configs(version: str = "sd-v1") -> dict[str, Any]:
    """The shipped configuration of `sd-v1`, `sd-v2` or `sdxl`, narrowed."""
    configs = shipped_configs(version)
    for component, changes in (NARROW | (NARROW_XL if version == "sdxl" else {})).items():
        configs[component].update(changes)
    if version == "sd-v2":
        configs["unet"]["attention_head_dim"] = [1, 1, 1, 1]
    return configs


@cache
def networks(version: str = "sd-v1", seed: int = 0) -> dict[str, Any]:
    """Text encoders, UNet and VAE with random weights. Shared between tests: do not change them."""
    if version == "sdxl":
        return _networks_of(SDXL, narrow_configs(version), seed)
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs = narrow_configs(version)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = {key: value for key, value in configs["text_encoder"].items() if key != "architectures"}
        return {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text)).eval(),
            "unet": UNet2DConditionModel.from_config(configs["unet"]).eval(),
            "vae": AutoencoderKL.from_config(configs["vae"]).eval(),
        }


def _networks_of(family: Family, configs: Mapping[str, Any], seed: int) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: part.build(configs[name]).eval() for name, part in family.parts.items()}


def family_of(version: str) -> Family:
    return SDXL if version == "sdxl" else SD


def tokenizers(version: str) -> dict[str, Any]:
    """By text encoder; the second of XL pads with another word."""
    keys = zip(family_of(version).encoders, ("pad_token", "pad_token_2"), strict=False)
    return {name: shipped_tokenizer(shipped_configs(version)[key], 77) for name, key in keys}


def tokenizer(version: str = "sd-v1") -> Any:
    from transformers import CLIPTokenizer

    folder, pad_token = str(embedded_folder() / "tokenizer"), shipped_configs(version)["pad_token"]
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=77, pad_token=pad_token)


def model(version: str = "sd-v1") -> Base:
    """Those networks as a base; shared between tests."""
    return base_of(networks(version), version)


def base_of(parts: Mapping[str, Any], version: str = "sd-v1", **facts: Any) -> Base:
    """Networks as a base of 64 px."""
    scheduler = narrow_configs(version)["scheduler"]
    usual: dict[str, Any] = {
        "name": "narrow",
        "source": "narrow",
        "revision": None,
        "kind": "folder",
        "hash": "",
        "family": family_of(version),
        "networks": dict(parts),
        "tokenizers": {"text_encoder": tokenizer(version)} if version != "sdxl" else tokenizers(version),
        "scheduler_config": scheduler,
        "prediction_type": scheduler["prediction_type"],
        "resolution": 64,
        "vae_factor": 8,
        "latent_channels": 4,
        "max_tokens": 77,
        "zero_negative": version == "sdxl",
    }
    return Base(**(usual | facts))


def tunable(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Of networks those that a run may change, the denoiser first."""
    return {name: parts[name] for name in SDXL.tunable if name in parts}


def write_folder(folder: Path, version: str = "sd-v1", seed: int = 0, **scheduler: Any) -> Path:
    """A diffusers folder as `StableDiffusionPipeline.save_pretrained` writes it."""
    import json

    parts = networks(version, seed)
    for component, network in parts.items():
        network.save_pretrained(folder / component)
    tokenizer(version).save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    config = {**narrow_configs(version)["scheduler"], **scheduler}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")
    library = {"text_encoder": "transformers", "unet": "diffusers", "vae": "diffusers"}
    index = {name: [library[name], type(network).__name__] for name, network in parts.items()}
    index |= {
        "_class_name": "StableDiffusionPipeline",
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", config["_class_name"]],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def draw(
    parts: Any,
    tokenizer: Any,
    scheduler_config: dict[str, Any],
    prompt: str = "a sks dog",
    size_px: int = 64,
) -> torch.Tensor:
    """One picture by diffusers' own pipeline, `[1, H, W, 3]`, two steps, fixed noise."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=tokenizer,
        unet=parts["unet"],
        scheduler=DDIMScheduler.from_config(scheduler_config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        prompt,
        num_inference_steps=2,
        height=size_px,
        width=size_px,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    return image.images


def assert_same(drawn: torch.Tensor, expected: torch.Tensor) -> None:
    """Images are the same but for last bits: diffusers computes with some layers in another form than they came in.

    By how much depends on the processor: 1.1e-5 was seen on an Intel Xeon with AMX, less on others.
    """
    torch.testing.assert_close(drawn, expected, rtol=0, atol=3e-5)


def parts_of(base: Any) -> dict[str, Any]:
    return {"text_encoder": base.text_encoder, "unet": base.unet, "vae": base.vae}
