"""Write the embedded folder: the base as a diffusers pipeline in float16, the judges, the photos, the card.

Every part is written beside its place and renamed into it, so a reader finds the old one or the new one whole.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from pretraining.base import NOISE
from pretraining.clip import load_text_tower
from pretraining.image_judge import write_image_judge
from pretraining.judges import Matched
from pretraining.photos import make_photos
from pretraining.progress import load_checkpoint
from pretraining.settings import JUDGE_PX, Run, parser, run_from
from pretraining.tokens import save_tokenizer
from pretraining.words import write_words

PARTS = ("sd", "tiny-clip", "tiny-dino", "photos")
PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, give its files mode 0644, and swap it into place."""
    part, old = target.with_name(target.name + ".part"), target.with_name(target.name + ".old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    for path in part.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(part, target)
    shutil.rmtree(old, ignore_errors=True)


def prefix_text_keys(path: Path) -> None:
    """Put `text_model.` before every key: transformers 4 and other tools find the weights by that name alone."""
    weights = load_file(path)
    named = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in weights.items()}
    save_file(named, path, metadata={"format": "pt"})


def say_float32(folder: Path) -> None:
    """Let a plain load on a CPU give float32: the files are float16 to be small, not to be computed in."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["dtype"] = "float32"
    config.pop("torch_dtype", None)
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_pipeline(run: Run, folder: Path) -> None:
    """Write the base of a run as a StableDiffusionPipeline folder in float16."""
    unet = UNet2DConditionModel.from_pretrained(run.folder / "unet", torch_dtype=torch.float16)
    vae = AutoencoderKL.from_pretrained(run.folder / "vae", torch_dtype=torch.float16)
    unet.register_to_config(_name_or_path="")
    vae.register_to_config(_name_or_path="")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    load_text_tower(run).half().save_pretrained(folder / "text_encoder")
    prefix_text_keys(folder / "text_encoder" / "model.safetensors")
    say_float32(folder / "text_encoder")
    scheduler = DDIMScheduler(**NOISE, set_alpha_to_one=False, steps_offset=1)
    scheduler.save_pretrained(folder / "scheduler")
    save_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps(PIPELINE, indent=2) + "\n")


def write_preprocess(folder: Path, size_px: int) -> None:
    """Write how a picture becomes the judge's input: resize, centre crop, [-1, 1]."""
    record = {"size_px": size_px, "resize": "bicubic", "crop": "center", "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "preprocess.json").write_text(json.dumps(record, indent=2) + "\n")


def write_clip(run: Run, folder: Path) -> None:
    """Write `tiny-clip`: CLIPVisionModelWithProjection and the projection of the base's pooled text."""
    module = Matched(run)
    saved = load_checkpoint(run.path("tiny-clip.pt"))
    assert saved is not None, "run pretraining.judges first"
    module.load_state_dict(saved["module"])
    module.image.half().save_pretrained(folder)
    say_float32(folder)
    weight = module.text_projection.weight.detach().half().contiguous()
    save_file({"weight": weight}, folder / "text_projection.safetensors", metadata={"format": "pt"})
    write_preprocess(folder, JUDGE_PX)


def make_pack(run: Run, embedded: Path, parts: set[str]) -> None:
    """Write the chosen parts of a run into the embedded folder."""
    if "sd" in parts:
        replace_folder(embedded / "sd", lambda folder: write_pipeline(run, folder))
        tokens = [entry["token"] for entry in json.loads(run.path("identities.json").read_text())]
        (embedded / "bound_tokens.json").write_text(json.dumps(sorted(tokens)) + "\n")
        write_words(embedded / "words.json")
    if "tiny-clip" in parts:
        replace_folder(embedded / "judges" / "tiny-clip", lambda folder: write_clip(run, folder))
    if "tiny-dino" in parts:
        replace_folder(embedded / "judges" / "tiny-dino", lambda folder: write_image_judge(run, folder))
    if "photos" in parts:
        size_px = 32 if run.size.name == "toy" else 256
        replace_folder(embedded / "photos", lambda folder: make_photos(folder, size_px))


def main() -> None:
    """Pack a run into the embedded folder."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("--embedded", type=Path, required=True, help="the folder dbcli/embedded of a checkout")
    options.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    arguments = options.parse_args()
    make_pack(run_from(arguments), arguments.embedded, set(arguments.part or PARTS))


if __name__ == "__main__":
    main()
