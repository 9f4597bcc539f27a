"""Models and photos to measure on: random ones at full size, one as two cores can train it, and the embedded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RANDOM = ("small", "sd-v1", "sdxl")
# The trained bases that come with the program.
EMBEDDED = ("tiny", "tiny-xl")

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


def add_base_options(options: argparse.ArgumentParser) -> None:
    """`--base` and `--size`: what is measured on."""
    options.add_argument("--base", help="a base that dreambooth init takes; a random one if left out")
    add_size_option(options)


def add_size_option(options: argparse.ArgumentParser) -> None:
    """`--size` of the random base, or an embedded one by its name."""
    options.add_argument(
        "--size",
        choices=(*RANDOM, *EMBEDDED),
        default="small",
        help="of the random base; sd-v1 and sdxl are all of them, tiny and tiny-xl the trained ones that come with it",
    )


def chosen_base(arguments: argparse.Namespace, folder: Path) -> str:
    """The base that `--base` names, else a random one of `--size`, written into `folder`."""
    if arguments.base is None:
        return str(write_base(folder, arguments.size))
    given = Path(arguments.base).expanduser()
    return str(given.resolve()) if given.exists() else str(arguments.base)


def load_once(base: str) -> str:
    """Loads a base, so that its hash is remembered and its files were read, as after any first use; returns it."""
    from dbcli.diffusion.bases.base import load_base

    load_base(base, offline=True)
    return base


def own_resolution(base: str) -> int:
    """Pixels a side that a base was made for."""
    from dbcli.diffusion.bases.base import latent_shape

    return latent_shape(base)[2]


def write_base(folder: Path, size: str = "small", *, seed: int = 0) -> Path:
    """Writes a base as a diffusers folder that every trainer can load; returns the folder.

    `sd-v1` and `sdxl` have the shapes of Stable Diffusion v1 and XL in half precision: 2.1 and 6.9 GB on disk, and no
    more of memory.
    """
    import torch

    from dbcli.diffusion.bases.base import load_base
    from dbcli.diffusion.formats import diffusers_folder

    if size in EMBEDDED:
        diffusers_folder.write_base(folder, load_base(size, offline=True))
        return folder
    diffusers_folder.write_base(
        folder, random_model(size, seed=seed), dtype=torch.float32 if size == "small" else torch.float16
    )
    return folder


def random_model(size: str, *, seed: int = 0) -> Any:
    """A random base in memory, as the formats write one."""
    from dbcli.diffusion.bases.single_file import shipped_configs, shipped_tokenizer
    from dbcli.diffusion.families.known import family_of_folder

    is_small = size == "small"
    shipped = shipped_configs("sd-v1" if is_small else size)
    family = family_of_folder(shipped["unet"])
    padding = zip(family.encoders, ("pad_token", "pad_token_2"), strict=False)
    return SimpleNamespace(
        family=family,
        networks=small_networks(seed) if is_small else random_networks(shipped, seed),
        tokenizers={name: shipped_tokenizer(shipped[key], 77) for name, key in padding},
        scheduler_config=SCHEDULER if is_small else shipped["scheduler"],
        max_tokens=77,
        zero_negative=family.zero_negative({}),
    )


def small_networks(seed: int) -> dict[str, Any]:
    """UNet, autoencoder and text encoder of the small base, float32, as their libraries begin them."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    text: dict[str, Any] = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    return {
        "unet": UNet2DConditionModel(**UNET),
        "vae": AutoencoderKL(**VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT, **text, hidden_act="quick_gelu")),
    }


def random_networks(configs: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The networks of these configurations, in half precision from the first value on."""
    import torch

    from dbcli.diffusion.bases.assembly import empty_network
    from dbcli.diffusion.families.known import family_of_folder

    generator = torch.Generator().manual_seed(seed)
    networks = {}
    for component, part in family_of_folder(configs["unet"]).parts.items():
        network = empty_network(component, part, configs[component])
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        state = {name: _random_values(name, shape, generator) for name, shape in shapes.items()}
        network.load_state_dict(state, assign=True)
        networks[component] = network
    return networks


def _random_values(name: str, shape: tuple[int, ...], generator: Any) -> Any:
    """Values that keep signals at their size in any depth: the scale of a norm is 1, a bias 0."""
    import torch

    values = torch.empty(shape, dtype=torch.float16)
    if len(shape) < 2:
        return values.fill_(float(name.endswith("weight")))
    return values.normal_(0, values[0].numel() ** -0.5, generator=generator)


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
