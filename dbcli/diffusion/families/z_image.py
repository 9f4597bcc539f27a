"""Z-Image: one language model that reads the prompt, a transformer of image and text together, a VAE; flow matching.

Tongyi-MAI 2025, "Z-Image: An Efficient Image Generation Foundation Model with Single-Stream Diffusion Transformer".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Config, Configs, Family, Ids, Networks, Original, Part, Size
from dbcli.diffusion.families.process import Flow
from dbcli.diffusion.families.sd import vae
from dbcli.diffusion.files.file_kinds import Z_IMAGE as TITLE
from dbcli.diffusion.files.weight_choice import OF_DIFFUSERS, OF_TRANSFORMERS
from dbcli.diffusion.lean_imports import lean_imports
from dbcli.prompt_text import cleaned

# Settings that are only about a language model's shape; the others can name code to fetch, or are about its training.
TEXT_SETTINGS = (
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_theta",
    "vocab_size",
)
# How much of a prompt is read, what stands around it in a conversation included.
MAX_TOKENS = 512
# The first and last layers as diffusers has them, for patches of 2 by 2 latents, and as they were published.
ENDS = {"all_x_embedder.2-1.": "x_embedder.", "all_final_layer.2-1.": "final_layer."}
# The attention's layers as they were published, which kohya's tools and ComfyUI train: diffusers divides the first.
FUSED = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": ("attention.to_out.0",),
}
# Where a prompt has no token: its rows are filled up with it.
NOTHING = -1


def text_encoder(config: Config) -> nn.Module:
    """The layers of the language model Qwen3, without its last one, which names words."""
    with lean_imports():
        from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
        from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

    return Qwen3Model(Qwen3Config(**{key: config[key] for key in TEXT_SETTINGS if config.get(key) is not None}))


def transformer(config: Config) -> nn.Module:
    """diffusers' transformer of Z-Image."""
    with lean_imports():
        from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    network: nn.Module = ZImageTransformer2DModel.from_config(dict(config))
    return network


def token_ids(tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """int64 `[N, L]`: each prompt as what a user says in a conversation that is to be answered; NOTHING fills it up."""
    said = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": cleaned(prompt)}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        for prompt in prompts
    ]
    found = tokenizer(said, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = found.input_ids.masked_fill(found.attention_mask == 0, NOTHING)
    return ids


def encode(encoders: Networks, ids: Ids, skipped: int) -> Conditioning:
    """The last hidden state but one of every token, and which tokens there are."""
    encoder = encoders["text_encoder"]
    rows = ids["text_encoder"].to(encoder.device)
    mask = rows != NOTHING
    found = encoder(rows.clamp_min(0), attention_mask=mask, output_hidden_states=True, use_cache=False)
    states = found.hidden_states[-(skipped + 2)]
    return Conditioning(torch.where(mask[..., None], states, 0), mask=mask)


def denoise(network: Any, latents: torch.Tensor, levels: Any, conditioning: Conditioning, size: Size) -> torch.Tensor:
    """The transformer is told the share of the image, 1 - s, and says the way from noise to it: less the velocity."""
    shares = levels.expand(len(latents)).to(latents.device)
    texts = conditioning.states.to(latents.dtype)
    mask = conditioning.mask
    rows = list(texts) if mask is None else [text[kept] for text, kept in zip(texts, mask, strict=True)]
    # Lists of images of one frame each.
    found = network(list(latents.unsqueeze(2)), 1 - shares, rows, return_dict=False)[0]
    velocity: torch.Tensor = -torch.stack(found).squeeze(2)
    return velocity


def original(part: str, name: str, configs: Configs) -> Original:
    """As Z-Image was published, which ComfyUI keeps to: its first and last layers are there once, whatever the patch.

    Of its attention, whose layers are divided otherwise, see `FUSED`.
    """
    for ours, theirs in ENDS.items():
        name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
    return Original(name)


def recognise_file(names: Collection[str]) -> bool:
    """Its models are read from folders only."""
    return False


def recognise_folder(config: Config) -> bool:
    """Whether a transformer is of this family, and for text to image: one for editing reads images, too."""
    return config.get("_class_name") == "ZImageTransformer2DModel" and config.get("siglip_feat_dim") is None


Z_IMAGE = Family(
    name="z-image",
    title=TITLE,
    tag="z-image",
    pipeline="ZImagePipeline",
    usual_state=2,
    tables={},
    parts={
        "text_encoder": Part(
            "text",
            "Qwen3Model",
            text_encoder,
            OF_TRANSFORMERS,
            tokenizer="tokenizer",
            tokenizer_class="Qwen2Tokenizer",
            also=("Qwen3ForCausalLM",),
            is_unloaded=True,
        ),
        "transformer": Part(
            "denoiser", "ZImageTransformer2DModel", transformer, OF_DIFFUSERS, kohya="diffusion_model."
        ),
        "vae": Part("vae", "AutoencoderKL", vae, OF_DIFFUSERS),
    },
    process=Flow,
    encode=encode,
    denoise=denoise,
    original=original,
    fused=FUSED,
    architecture=lambda configs, prediction: "z-image",
    kohya_base=lambda configs, prediction: {"base_model_version": "zimage", "v2": False},
    recognise_file=recognise_file,
    recognise_folder=recognise_folder,
    zero_negative=lambda index: False,
    # Those of latents and of text, and the first that reads levels.
    ends=("all_x_embedder.*", "cap_embedder.*", "t_embedder.mlp.0", "all_final_layer.*.linear"),
    patch=2,
    latent_scale=0.3611,
    vae_in_fp32=True,
    pipeline_settings=lambda zero_negative: {},
    exports=("lora", "kohya", "comfyui"),
    comfyui_files={
        "diffusion_models": "z_image_bf16.safetensors",
        "text_encoders": "qwen_3_4b.safetensors",
        "vae": "ae.safetensors",
    },
    token_ids=token_ids,
    max_tokens=MAX_TOKENS,
    trains_text=False,
    sized_by="vae",
    readers={"kohya": "ComfyUI (and diffusers)", "lora": "diffusers (for ComfyUI: --to kohya)"},
    alpha_in_weights=True,
)
