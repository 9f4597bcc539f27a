"""A small Z-Image with random weights and a byte-level tokenizer of a few words, as the libraries write it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

WORDS = ("photo", "dog", "snow", "sks", "ohwx", "qzv", "xjk", "vqw", "wug")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SCHEDULER = {"num_train_timesteps": 1000, "shift": 3.0}


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Every byte, then each of WORDS behind a space, letter by letter: the later a word, the higher its number."""
    from tokenizers import pre_tokenizers
    from transformers.models.clip.tokenization_clip import CLIPTokenizer  # noqa: F401  # imports the byte alphabet

    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in WORDS:
        whole = "Ġ"
        for letter in word:
            if whole + letter not in tokens:
                merges.append((whole, letter))
                tokens.append(whole + letter)
            whole += letter
    return {token: number for number, token in enumerate(tokens)}, merges


@cache
def tokenizer() -> Any:
    from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

    vocab, merges = vocabulary()
    made = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|im_end|>", model_max_length=131_072)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = TEMPLATE
    return made


@cache
def networks() -> dict[str, Any]:
    """Shared between tests: do not change them."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = Qwen3Config(
            vocab_size=len(tokenizer()) + 5,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=1024,
        )
        transformer = ZImageTransformer2DModel(
            dim=48,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=3,
            n_kv_heads=3,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        )
        # The library leaves them at zero, and the last layers too small to see anything of a prompt.
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            torch.nn.init.normal_(token)
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            sample_size=64,
        )
        return {"text_encoder": Qwen3Model(text).eval(), "transformer": transformer.eval(), "vae": vae.eval()}


def pipeline() -> Any:
    """Those networks in diffusers' own pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    made = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=tokenizer(),
        **networks(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def write_folder(folder: Path, *, max_shard_size: str = "5GB") -> Path:
    """A folder as `ZImagePipeline.save_pretrained` writes it."""
    pipeline().save_pretrained(folder, max_shard_size=max_shard_size)
    return folder
