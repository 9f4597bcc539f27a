"""Stable Diffusion XL: two CLIP text encoders, pooled text and sizes beside the prompt, a UNet, and a VAE.

Podell et al. 2023, "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", section 2.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from dbcli.diffusion.families import sd
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Config, Configs, Family, Ids, Networks, Original, Part, Size
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.families.sd import GENERATIVE_MODELS, IMPLEMENTATIONS, text_config, text_encoder, unet, vae
from dbcli.diffusion.files import original_names as names
from dbcli.diffusion.files.file_kinds import SDXL as TITLE
from dbcli.diffusion.files.weight_choice import OF_DIFFUSERS, OF_TRANSFORMERS
from dbcli.diffusion.lean_imports import lean_imports

ENCODERS = ("text_encoder", "text_encoder_2")
FIRST_PREFIX, SECOND_PREFIX = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
# CLIP's end of text. Published configurations say 2, by which transformers takes the highest token number instead: a
# word that training added has a higher one.
END_OF_TEXT, UNTOLD_END = 49407, 2
# The structure that every XL has.
DOWN_BLOCKS = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]


def projected_text_encoder(config: Config) -> nn.Module:
    """CLIP's text tower with the projection of its pooled state."""
    with lean_imports():
        from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(text_config(config))


def encode(encoders: Networks, ids: Ids, skipped: int) -> Conditioning:
    """The last hidden state but one of both, side by side, without the final layer norm; the second's projected end."""
    states, pooled = [], None
    for name in ENCODERS:
        encoder = encoders[name]
        rows = ids[name].to(encoder.device)
        found = encoder(rows, output_hidden_states=True)
        states.append(found.hidden_states[-(skipped + 2)])
        pooled = _pooled(encoder, rows, found)
    return Conditioning(torch.cat(states, dim=-1), pooled)


def _pooled(encoder: Any, ids: torch.Tensor, found: Any) -> torch.Tensor | None:
    """The projected state at each prompt's first end of text, `[N, P]`; None of an encoder without a projection."""
    if not hasattr(encoder, "text_projection"):
        return None
    stated = int(encoder.config.eos_token_id)
    end = END_OF_TEXT if stated == UNTOLD_END else stated
    places = (ids == end).int().argmax(dim=1)
    state = found.last_hidden_state[torch.arange(len(ids), device=ids.device), places]
    projected: torch.Tensor = encoder.text_projection(state)
    return projected


def denoise(network: Any, latents: torch.Tensor, levels: Any, conditioning: Conditioning, size: Size) -> torch.Tensor:
    """The UNet is told the pooled text and the frames: without any, never cropped, and never of another size."""
    states, pooled = conditioning.states, conditioning.pooled
    assert pooled is not None
    time_ids = torch.tensor([*size, 0, 0, *size], dtype=states.dtype, device=states.device).expand(len(states), -1)
    if conditioning.frames is not None:
        time_ids = conditioning.frames.float()
    added = {"text_embeds": pooled, "time_ids": time_ids}
    prediction: torch.Tensor = network(latents, levels, states, added_cond_kwargs=added).sample
    return prediction


def original(part: str, name: str, configs: Configs) -> Original:
    """As Stability AI wrote it: the first text encoder is CLIP's, the second OpenCLIP's, the rest as in version 1."""
    if part not in ENCODERS:
        return sd.original(part, name, configs)
    if part == "text_encoder":
        return Original(FIRST_PREFIX + name)
    if name == "text_projection.weight":
        return Original(f"{SECOND_PREFIX}text_projection", transposed=True)
    stated, third = names.open_clip_name(name)
    return Original(SECOND_PREFIX + stated.removeprefix(names.OPEN_CLIP_PREFIX), third)


def kohya_name(part: str, layer: str, configs: Configs) -> str:
    """UNet layers by the block numbers of the original layout: kohya's merging and training take no others.

    Those of a UNet of another structure, which no other program can load, keep their own names.
    """
    unet = configs.get("unet", {})
    if part != "unet" or list(unet.get("down_block_types", ())) != DOWN_BLOCKS or unet["layers_per_block"] != 2:
        return layer
    return names.unet_name(f"{layer}.weight", unet).removeprefix(names.UNET_PREFIX).removesuffix(".weight")


def architecture(configs: Configs, prediction: str) -> str:
    """ModelSpec has one name for all of them."""
    return "stable-diffusion-xl-v1-base"


def kohya_base(configs: Configs, prediction: str) -> dict[str, object]:
    """kohya's version."""
    return {"base_model_version": "sdxl_base_v1-0", "v2": False}


def recognise_file(names: Collection[str]) -> bool:
    """Whether a file in the original layout has both text encoders of this family."""
    return any(name.startswith(FIRST_PREFIX) for name in names) and any(
        name.startswith(SECOND_PREFIX) for name in names
    )


def recognise_folder(unet: Config) -> bool:
    """Whether a UNet is told the pooled text and sizes of two encoders; the refiner reads the larger one alone."""
    return unet.get("addition_embed_type") == "text_time" and unet.get("cross_attention_dim") != 1280


def zero_negative(index: Config) -> bool:
    """Whether a missing negative prompt is zeros rather than an empty prompt; that is what its pipelines leave out."""
    return bool(index.get("force_zeros_for_empty_prompt", True))


SDXL = Family(
    name="sdxl",
    title=TITLE,
    tag="stable-diffusion-xl",
    pipeline="StableDiffusionXLPipeline",
    usual_state=2,
    tables={"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
    parts={
        "text_encoder": Part(
            "text", "CLIPTextModel", text_encoder, OF_TRANSFORMERS, kohya="lora_te1_", tokenizer="tokenizer"
        ),
        "text_encoder_2": Part(
            "text",
            "CLIPTextModelWithProjection",
            projected_text_encoder,
            OF_TRANSFORMERS,
            kohya="lora_te2_",
            tokenizer="tokenizer_2",
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
    kohya_name=kohya_name,
    recognise_file=recognise_file,
    recognise_folder=recognise_folder,
    zero_negative=zero_negative,
    ends=("conv_in", "conv_out"),
    patch=1,
    latent_scale=0.13025,
    vae_in_fp32=True,
    pipeline_settings=lambda zero_negative: {"force_zeros_for_empty_prompt": zero_negative},
    # kohya's LoRAs of it have the block numbers of the original layout.
    implementations=IMPLEMENTATIONS | {"kohya": GENERATIVE_MODELS},
)
