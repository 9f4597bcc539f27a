"""Small judges with random weights, and pictures, written to disk for the tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import dbcli

EMBEDDED_SD = Path(dbcli.__file__).parent / "embedded" / "sd"
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_embedded_judges(root: Path) -> Path:
    """The embedded judges' folders under `root`/judges, beside the real text encoder; returns `root`."""
    import transformers

    torch.manual_seed(0)
    shutil.copytree(EMBEDDED_SD / "text_encoder", root / "sd" / "text_encoder")
    shutil.copytree(EMBEDDED_SD / "tokenizer", root / "sd" / "tokenizer")
    clip, dino = root / "judges" / "tiny-clip", root / "judges" / "tiny-dino"
    vision = transformers.CLIPVisionConfig(**SHAPE, image_size=32, patch_size=8, projection_dim=24)
    transformers.CLIPVisionModelWithProjection(vision).save_pretrained(clip)
    save_file({"weight": torch.randn(24, 128)}, clip / "text_projection.safetensors")
    vit = transformers.ViTConfig(**SHAPE, image_size=32, patch_size=8)
    transformers.ViTModel(vit, add_pooling_layer=False).save_pretrained(dino)
    for folder in (clip, dino):
        content = {"size_px": 32, "resize": "bicubic", "crop": "center"}
        content |= {"mean": [0.5] * 3, "std": [0.5] * 3}
        (folder / "preprocess.json").write_text(json.dumps(content))
    return root


def write_pictures(folder: Path, count: int, *, seed: int) -> tuple[Path, ...]:
    """So many different pictures: coarse random colours of one hue, so that those of a call look alike."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    hue = random.integers(0, 160, (1, 1, 3))
    paths = []
    for number in range(count):
        pixels = (hue + random.integers(0, 96, (5, 6, 3))).astype("uint8")
        path = folder / f"{number:02d}.png"
        Image.fromarray(pixels).resize((60, 50), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return tuple(paths)
