"""Encoders from their files: timm's ViT, open_clip's CLIP, or either as transformers saves it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dbcli.metrics.judges.files import JudgeFiles
from dbcli.metrics.judges.judge import Encoder
from dbcli.metrics.judges.preprocessing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocessing

TIMM_NAME = "vit_small_patch16_224.dino"
OPEN_CLIP_NAMES = {"clip": "ViT-B-32-quickgelu", "clip-l": "ViT-L-14-quickgelu"}
CLASS_TOKEN = {"feature": "class token after the last layer norm"}
JOINT_SPACE: dict[str, Any] = {"feature": "projected, joint space"}


def build(kind: str, files: JudgeFiles, device: str) -> Encoder:
    """The encoder of a judge's files. Raises RuntimeError or ValueError where the files do not fit."""
    config = _read_json(files.folder / "config.json") if files.folder else {}
    if "model_type" in config:
        builder = transformers_vit if kind == "dino" else _transformers_clip
        return builder(files.folder, config, device)
    return _timm_vit(files, config, device) if kind == "dino" else _open_clip(kind, files, device)


def _timm_vit(files: JudgeFiles, config: dict[str, Any], device: str) -> Encoder:
    import timm

    architecture = str(config.get("architecture", TIMM_NAME.partition(".")[0]))
    model: Any = timm.create_model(architecture, pretrained=False, num_classes=0, **config.get("model_args", {}))
    state = {name: value for name, value in read_state(files.weights).items() if not name.startswith("head.")}
    model.load_state_dict(state, strict=True)
    size = int(model.patch_embed.img_size[0])
    model = model.float().eval().to(device)
    tag = config.get("pretrained_cfg", {}).get("tag")
    return Encoder(
        f"{architecture}.{tag}" if tag else (TIMM_NAME if not config else architecture),
        f"timm {timm.__version__}",
        _vit_preprocessing(size),
        encode_pixels=lambda pixels: model.forward_features(pixels)[:, 0],
        notes=CLASS_TOKEN,
    )


def _open_clip(kind: str, files: JudgeFiles, device: str) -> Encoder:
    import open_clip  # type: ignore[import-untyped]  # it ships no types

    described = _read_json(files.folder / "open_clip_config.json") if files.folder else {}
    vision = described["model_cfg"]["vision_cfg"] if described else {}
    name = f"local-dir:{files.folder}" if described else OPEN_CLIP_NAMES[kind]
    with _quiet():
        model = open_clip.create_model(name, pretrained=None, load_weights=False, device="cpu")
        open_clip.factory.load_checkpoint(model, str(files.weights), strict=True, weights_only=True)
        tokenizer = open_clip.get_tokenizer(name)
    settings = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"][0] if isinstance(settings["size"], tuple | list) else settings["size"]
    model = model.float().eval().to(device)
    return Encoder(
        f"CLIP ViT-{vision.get('width')}/{vision.get('patch_size')} x {vision.get('layers')}"
        if described
        else OPEN_CLIP_NAMES[kind],
        f"open_clip {open_clip.__version__}",
        Preprocessing(size, size, tuple(settings["mean"]), tuple(settings["std"])),
        encode_pixels=model.encode_image,
        encode_tokens=lambda texts: model.encode_text(tokenizer(texts).to(device)),
        count_tokens=lambda text: len(tokenizer.encode(text)) + 2,  # begin and end of the text
        notes=JOINT_SPACE | {"max_tokens": int(model.context_length)},
    )


def transformers_vit(folder: Path | None, config: dict[str, Any], device: str) -> Encoder:
    """A ViT without a head, as transformers saves it."""
    import transformers

    if config["model_type"] != "vit":
        raise ValueError(f"expected a ViT, found model_type {config['model_type']!r}")
    model = load_transformers(transformers.ViTModel, folder, add_pooling_layer=False).to(device)
    return Encoder(
        f"ViT-{config['hidden_size']}/{config['patch_size']} (transformers)",
        f"transformers {transformers.__version__}",
        _vit_preprocessing(int(model.config.image_size)),
        encode_pixels=lambda pixels: model(pixel_values=pixels).last_hidden_state[:, 0],
        notes=CLASS_TOKEN,
    )


def _vit_preprocessing(size_px: int) -> Preprocessing:
    # 256 : 224, the proportion of the original evaluation
    return Preprocessing(round(size_px * 256 / 224), size_px, IMAGENET_MEAN, IMAGENET_STD)


def _transformers_clip(folder: Path | None, config: dict[str, Any], device: str) -> Encoder:
    import transformers

    if config["model_type"] != "clip":
        raise ValueError(f"expected a CLIP, found model_type {config['model_type']!r}")
    model = load_transformers(transformers.CLIPModel, folder).to(device)
    with _quiet():
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    vision = model.config.vision_config
    size, length = int(vision.image_size), int(model.config.text_config.max_position_embeddings)

    def encode_pixels(pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        return features

    def encode_tokens(texts: list[str]) -> torch.Tensor:
        tokens = padded_tokens(tokenizer, texts, length).to(device)
        features: torch.Tensor = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
        return features

    return Encoder(
        f"CLIP ViT-{vision.hidden_size}/{vision.patch_size} (transformers)",
        f"transformers {transformers.__version__}",
        Preprocessing(size, size, CLIP_MEAN, CLIP_STD),
        encode_pixels=encode_pixels,
        encode_tokens=encode_tokens,
        count_tokens=lambda text: len(tokenizer(text).input_ids),
        notes=JOINT_SPACE | {"max_tokens": length},
    )


def padded_tokens(tokenizer: Any, texts: list[str], length: int) -> torch.Tensor:
    """int64 `[len(texts), length]`, padded and cut."""
    how = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    ids: torch.Tensor = tokenizer(texts, **how).input_ids
    return ids


def load_transformers(
    model_class: Any, folder: Path | None, *, dtype: torch.dtype = torch.float32, **settings: Any
) -> Any:
    """A transformers model in eval mode, in float32 or `dtype`; RuntimeError where the file lacks any of its weights.

    transformers fills what is missing with random numbers and goes on, which no score would survive.
    """
    with _quiet():
        model, report = model_class.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, **settings
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise RuntimeError(f"{len(missing)} weights are missing, starting with {missing[0]}")
    return model.eval()


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a pickle that holds tensors alone."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError("not a plain dictionary of tensors")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no "initialised randomly" notes on the terminal while a judge loads."""
    import logging

    from transformers.utils import logging as of_transformers

    bars: Any = of_transformers
    previous, had_bars = logging.getLogger().manager.disable, bars.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(previous)
        if had_bars:
            bars.enable_progress_bar()
