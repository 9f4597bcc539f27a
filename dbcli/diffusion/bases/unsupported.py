"""Kinds of models and settings that no base here has, told from headers and configurations and refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.files.file_kinds import SD, SDXL, Z_IMAGE, FileKind, kind_of
from dbcli.diffusion.files.model_files import read_json
from dbcli.diffusion.files.original_names import UNET_PREFIX, VAE_PREFIX
from dbcli.diffusion.files.weight_file import WeightFile
from dbcli.diffusion.schedulers.checks import is_number
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile
from dbcli.hints import ONLY_BASES

if TYPE_CHECKING:
    from dbcli.diffusion.families.family import Family

# What files can be a base of, and where those of XL have their text encoders.
SUPPORTED = (SD, SDXL)
CONDITIONERS = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
REFINER_WIDTH = 1280
# What UNets with more input channels than latents have are made for.
CHANNELS = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}
_QUANTISED = re.compile(r"\.(absmax|quant_map|quant_state\..+|nested_absmax|qweight|qzeros)$")
_OF_AN_ADAPTER = "Give the base it was trained on; in its project, dreambooth import-lora takes LoRA files."
# Settings of a UNet that ask for more than a prompt, and what such models are.
_UNET_SETTINGS = (
    ("class_embed_type", "a UNet that is conditioned on classes or images (unCLIP, upscalers)"),
    ("num_class_embeds", "a UNet that is conditioned on classes (upscalers)"),
    ("encoder_hid_dim_type", "a UNet that is conditioned on images (Kandinsky, IP-Adapter)"),
    ("time_cond_proj_dim", "a latent consistency model"),
)
# Files that people keep beside base models, by a name that each has.
_OTHERS = (
    (re.compile(r"^(ip_adapter|image_proj)\."), "an IP-Adapter"),
    (re.compile(r"^(adapter\.)?body\.\d+\.(block1|resnets)\."), "a T2I-Adapter"),
    (re.compile(r"^(model\.\d+\.|conv_first\.|params_ema\.)"), "an upscaler of images"),
    (re.compile(r"^(vision_model|visual_projection)\."), "an image encoder or a safety checker"),
)
_FAMILIES = (
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("SD3", "Stable Diffusion 3"),
    ("Flux2", "FLUX.2"),
    ("Flux", "Flux"),
    ("StableCascade", "Stable Cascade"),
    ("Wuerstchen", "Würstchen"),
    ("Kandinsky", "Kandinsky"),
    ("PixArt", "PixArt"),
    ("QwenImage", "Qwen-Image"),
)
_ALONE = {
    "AutoencoderKL": "an autoencoder (VAE) alone",
    "UNet2DConditionModel": "a UNet alone",
    "ControlNetModel": "a ControlNet",
    "T2IAdapter": "a T2I-Adapter",
    "MotionAdapter": "a motion module of AnimateDiff",
}

# Pipelines of these families that are not for text to image, by a part of their class.
_TASKS = (
    ("Inpaint", "an inpainting model"),
    ("InstructPix2Pix", "an InstructPix2Pix model"),
    ("LatentConsistency", "a latent consistency model"),
    ("Upscale", "an upscaler"),
    ("Depth2Img", "a depth-to-image model"),
    ("UnCLIP", "a model conditioned on images (unCLIP)"),
    ("ControlNet", "a model with a ControlNet"),
    ("AltDiffusion", "an AltDiffusion model"),
)

USUAL_SAMPLE_SIZE = 64


def check_channels(taken: int, given: int, where: str) -> None:
    """Raises UnsupportedFile for a UNet that takes more channels than it gives."""
    if taken != given:
        what = CHANNELS.get(taken, "made for editing")
        raise UnsupportedFile(f"{where} takes {taken} input channels, not {given}: {what}.", hint=ONLY_BASES)


def check_single_file(weights: WeightFile, stored: WeightFile, *, needs_vae: bool) -> None:
    """Raises UnsupportedFile for a file that is something else than a base, BaseMissing for one that lacks a part.

    `weights` goes by the original names, `stored` by those of the file.
    """
    path, names = stored.path, set(weights.names())
    kind = kind_of(stored)
    if any(_QUANTISED.search(name) for name in names):
        raise UnsupportedFile(f"{path} is quantised (bitsandbytes or GPTQ).", hint="Use the model in fp16 or fp32.")
    if kind.kind == "adapter" or any("lora_" in name or ".lora" in name for name in names):
        what = kind.title if kind.kind == "adapter" else "a model with the layers of a LoRA in it"
        raise UnsupportedFile(
            f"{path} is {what}, not a base model.",
            hint=_OF_AN_ADAPTER,
        )
    family = _family_of(kind, names)
    if family:
        raise UnsupportedFile(f"{path} is {family}.", hint=ONLY_BASES)
    if f"{UNET_PREFIX}input_blocks.0.0.weight" not in names:
        raise _without_unet(stored, kind)
    lacking = []
    if needs_vae and not any(name.startswith(VAE_PREFIX) for name in names):
        lacking.append("no autoencoder (VAE)")
    encoders = CONDITIONERS if kind.made_for == SDXL else ("cond_stage_model.",)
    missing = [start for start in encoders if not any(name.startswith(start) for name in names)]
    if missing:
        lacking.append("no text encoder" if len(missing) == len(encoders) else "only one of two text encoders")
    if lacking:
        only_vae = lacking == ["no autoencoder (VAE)"]
        raise BaseMissing(
            f"{path} contains {' and '.join(lacking)}.",
            hint="--vae FILE_OR_FOLDER gives one beside it." if only_vae else "Use the complete checkpoint.",
        )


def _family_of(kind: FileKind, names: set[str]) -> str:
    """What to call a model of another family, "" for those that can be a base."""
    if kind.kind == "embedding":
        return f"{kind.title}, not a checkpoint in the original layout"
    if kind.kind in ("controlnet", "motion-module"):
        return kind.title
    has_classes = any(name.startswith(f"{UNET_PREFIX}label_emb.") for name in names)
    if has_classes and any(name.startswith("cond_stage_model.") for name in names):
        return "a Stable Diffusion model conditioned on images (unCLIP)"
    if any(name.startswith("conditioner.embedders.0.model.") for name in names) and not any(
        name.startswith("conditioner.embedders.1.") for name in names
    ):
        return f"the refiner of {SDXL}"
    return f"a {kind.made_for} model" if kind.made_for not in ("", *SUPPORTED) else ""


def _without_unet(stored: WeightFile, kind: FileKind) -> UnsupportedFile | BaseMissing:
    path = stored.path
    if kind.kind == "vae":
        return UnsupportedFile(
            f"{path} is {kind.title} alone.", hint="--vae takes it; --base takes the model it goes with."
        )
    other = next((what for mark, what in _OTHERS if any(mark.search(name) for name in stored.names())), None)
    if other is not None:
        return UnsupportedFile(f"{path} is {other}, not a base model.", hint=ONLY_BASES)
    if kind.kind in ("unet", "checkpoint"):
        what = "a UNet alone" if kind.kind == "unet" else "not a complete checkpoint"
        return BaseMissing(
            f"{path} is {what}: it contains no base in the original layout.",
            hint="Give the complete checkpoint, or the diffusers folder that the file belongs to.",
        )
    if kind.kind == "unknown":
        return UnsupportedFile(f"{path} is not a Stable Diffusion checkpoint in the original layout.", hint=ONLY_BASES)
    return UnsupportedFile(f"{path} is {kind.title}, not a base model.", hint=ONLY_BASES)


def check_folder(folder: Path) -> None:
    """Raises UnsupportedFile for a folder whose configurations name another kind of model; only JSON is read."""
    _check_class(folder, "model_index.json", _task_of)
    if (folder / "unet" / "config.json").is_file():
        check_unet_config(read_json(folder / "unet" / "config.json"), f"{folder}")
        return
    if (folder / "adapter_config.json").is_file() or (folder / "pytorch_lora_weights.safetensors").is_file():
        raise UnsupportedFile(f"{folder} is a LoRA, not a base model.", hint=_OF_AN_ADAPTER)
    _check_class(folder, "transformer/config.json", _transformer_of)
    transformer = folder / "transformer" / "config.json"
    if transformer.is_file() and read_json(transformer).get("siglip_feat_dim") is not None:
        raise UnsupportedFile(f"{folder} is a {Z_IMAGE} model that edits images (siglip_feat_dim).", hint=ONLY_BASES)
    _check_class(folder, "config.json", _ALONE.get)


def _check_class(folder: Path, file: str, otherwise: Callable[[str], str | None]) -> None:
    """Refuses a folder by the class that one of its configurations names: by its family, or as `otherwise` says."""
    if (folder / file).is_file():
        found = str(read_json(folder / file).get("_class_name", ""))
        family = next((family for start, family in _FAMILIES if found.startswith(start)), None)
        what = f"a {family} model" if family else otherwise(found)
        if what is not None:
            raise UnsupportedFile(f"{folder} is {what} ({found}).", hint=ONLY_BASES)


def _transformer_of(kind: str) -> str | None:
    # Most files and folders are refused without torch, which a family needs.
    from dbcli.diffusion.families.known import FAMILIES

    known = {family.parts[family.denoiser].class_name for family in FAMILIES}
    return None if kind in known else "a transformer instead of a UNet"


def _task_of(pipeline: str) -> str | None:
    return next((what for mark, what in _TASKS if mark.lower() in pipeline.lower()), None)


def check_unet_config(config: Mapping[str, Any], where: str) -> None:
    """Raises UnsupportedFile for the configuration of a UNet that asks for more than a prompt."""
    added = config.get("addition_embed_type")
    # The refiner alone reads the larger of the two text encoders and nothing else.
    if added == "text_time" and config.get("cross_attention_dim") == REFINER_WIDTH:
        what = f"the refiner of {SDXL} (cross_attention_dim {REFINER_WIDTH})"
        raise UnsupportedFile(f"{where} is {what}.", hint=ONLY_BASES)
    if added not in (None, "text_time"):
        raise UnsupportedFile(f"{where} has a UNet with addition_embed_type {added}.", hint=ONLY_BASES)
    for key, what in _UNET_SETTINGS:
        if config.get(key) is not None:
            raise UnsupportedFile(f"{where} has {what} ({key} {config[key]}).", hint=ONLY_BASES)
    taken, given = config.get("in_channels", 4), config.get("out_channels", 4)
    if isinstance(taken, int) and isinstance(given, int):
        check_channels(taken, given, where)


def check_settings(configs: Mapping[str, Mapping[str, Any]], family: Family, where: str) -> None:
    """Raises UnsupportedFile for another kind of model, UnsafeFile for a setting that means nothing.

    `configs` are those of the scheduler, the VAE and the denoiser; what is left out is as usual.
    """
    family.process.check(configs.get("scheduler", {}), where)
    check_scale(configs.get("vae", {}), f"{where} (vae)")
    part = family.sized_by or family.denoiser
    sample_size(configs.get(part, {}), f"{where} ({part})")


def check_scale(vae: Mapping[str, Any], where: str) -> None:
    """Raises UnsafeFile for a VAE whose latents are scaled by nothing that is a number."""
    scale = vae.get("scaling_factor", 0.18215)
    if not is_number(scale) or not scale > 0:
        raise UnsafeFile(f"{where}: scaling_factor is {scale!r}, not a number above 0.")


def resolution_px(configs: Mapping[str, Mapping[str, Any]], family: Family, factor: int) -> int:
    """How many px a base's images are wide and high; a latent covers `factor`. Raises UnsafeFile for no square."""
    if family.sized_by:
        return sample_size(configs[family.sized_by])
    return sample_size(configs[family.denoiser]) * factor


def sample_size(config: Mapping[str, Any], where: str = "config.json") -> int:
    """How many latents a UNet's images are wide and high. Raises UnsafeFile where that makes no square."""
    found = config.get("sample_size")
    sides = found if isinstance(found, list | tuple) and found else [found]
    if sides[0] is None:
        return USUAL_SAMPLE_SIZE
    if any(side != sides[0] for side in sides) or type(sides[0]) is not int or sides[0] < 1:
        raise UnsafeFile(f"{where}: sample_size is {found!r}, not a whole number above 0.")
    return sides[0]
