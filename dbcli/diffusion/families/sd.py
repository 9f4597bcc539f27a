"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet that predicts noise or v, and a VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Config, Configs, Family, Ids, Networks, Original, Part, Size
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.files import original_names as names
from dbcli.diffusion.files.file_kinds import SD as TITLE
from dbcli.diffusion.files.weight_choice import OF_DIFFUSERS, OF_TRANSFORMERS
from dbcli.diffusion.lean_imports import lean_imports
from dbcli.diffusion.schedulers.prediction import V

# Settings that are only about a CLIP text tower's shape and tokens. The others that transformers knows can name
# code to fetch (an attention kernel), so they are never taken from a file.
TEXT_SETTINGS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_factor",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "projection_dim",
    "vocab_size",
)

# The implementation that kohya's programs state for every version of Stable Diffusion, the first ones included.
GENERATIVE_MODELS = "https://github.com/Stability-AI/generative-models"
IMPLEMENTATIONS = dict.fromkeys(("checkpoint", "embedding", "embedding-invokeai"), GENERATIVE_MODELS)


def text_encoder(config: Config) -> nn.Module:
    """CLIP's text tower without its projection."""
    with lean_imports():
        from transformers.models.clip.modeling_clip import CLIPTextModel

    return CLIPTextModel(text_config(config))


def text_config(config: Config) -> Any:
    """A CLIP text tower's configuration, of the settings that are only about its shape and tokens."""
    with lean_imports():
        from transformers.models.clip.configuration_clip import CLIPTextConfig

    return CLIPTextConfig(**{key: config[key] for key in TEXT_SETTINGS if key in config})


def unet(config: Config) -> nn.Module:
    """diffusers' UNet for text to image."""
    with lean_imports():
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    network: nn.Module = UNet2DConditionModel.from_config(dict(config))
    return network


def vae(config: Config) -> nn.Module:
    """diffusers' autoencoder of Stable Diffusion."""
    with lean_imports():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    network: nn.Module = AutoencoderKL.from_config(dict(config))
    return network


def encode(encoders: Networks, ids: Ids, skipped: int) -> Conditioning:
    """The last hidden state, or the one `skipped` layers before it, through the final layer norm; with gradients."""
    encoder = encoders["text_encoder"]
    rows = ids["text_encoder"].to(encoder.device)
    if skipped:
        hidden = encoder(rows, output_hidden_states=True).hidden_states[-(skipped + 1)]
        tower: Any = getattr(encoder, "text_model", encoder)
        return Conditioning(tower.final_layer_norm(hidden))
    return Conditioning(encoder(rows).last_hidden_state)


def denoise(network: Any, latents: torch.Tensor, levels: Any, conditioning: Conditioning, size: Size) -> torch.Tensor:
    """The UNet reads the states alone."""
    prediction: torch.Tensor = network(latents, levels, conditioning.states).sample
    return prediction


def original(part: str, name: str, configs: Configs) -> Original:
    """As CompVis wrote it; the text encoder of Stable Diffusion 2 is OpenCLIP's, which stacks its attention."""
    if part == "unet":
        return Original(names.unet_name(name, configs["unet"]))
    if part == "vae":
        return Original(names.vae_name(name, configs["vae"]))
    if is_second(configs):
        return Original(*names.open_clip_name(name))
    return Original(names.CLIP_PREFIX + name)


def is_second(configs: Configs) -> bool:
    """Whether a model is Stable Diffusion 2."""
    return bool(configs["unet"].get("use_linear_projection"))


def architecture(configs: Configs, prediction: str) -> str:
    """`stable-diffusion-v1`, `stable-diffusion-v2-512` or `stable-diffusion-v2-768-v`."""
    if not is_second(configs):
        return "stable-diffusion-v1"
    return "stable-diffusion-v2-768-v" if prediction == V else "stable-diffusion-v2-512"


def kohya_base(configs: Configs, prediction: str) -> dict[str, object]:
    """kohya's version, and whether it is 2."""
    is_v2 = is_second(configs)
    v2 = "sd_v2_v" if prediction == V else "sd_v2"
    return {"base_model_version": v2 if is_v2 else "sd_v1", "v2": is_v2}


SD = Family(
    name="sd",
    title=TITLE,
    tag="stable-diffusion",
    pipeline="StableDiffusionPipeline",
    usual_state=1,
    tables={},
    parts={
        "text_encoder": Part(
            "text", "CLIPTextModel", text_encoder, OF_TRANSFORMERS, kohya="lora_te_", tokenizer="tokenizer"
        ),
        "unet": Part("denoiser", "UNet2DConditionModel", unet, OF_DIFFUSERS, kohya="lora_unet_"),
        "vae": Part("vae", "AutoencoderKL", vae, OF_DIFFUSERS),
    },
    process=Diffusion,
    encode=encode,
    denoise=denoise,
    original=original,
    architecture=architecture,
    kohya_base=kohya_base,
    recognise_file=lambda names: True,
    recognise_folder=lambda unet: True,
    zero_negative=lambda index: False,
    ends=("conv_in", "conv_out"),
    patch=1,
    latent_scale=0.18215,
    vae_in_fp32=False,
    pipeline_settings=lambda zero_negative: {"requires_safety_checker": False, "safety_checker": [None, None]},
    implementations=IMPLEMENTATIONS,
)
