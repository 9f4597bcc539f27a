"""Does DreamBooth work on the base? A plain loop, with and without prior preservation, and what the judges say of it.

This is the shortest form of the method (Ruiz et al., 2023): the subject's photos under "a sks NOUN", class images
drawn by the base itself under "a NOUN", one sum of two losses. The training is independent of the program it is
shipped with.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from dbcli.metrics.judges.loading import load_judge
from pretraining.base import labelled_grid
from pretraining.clip import shrink
from pretraining.compose import with_article
from pretraining.measure import draw, load_pipeline
from pretraining.scenes import SCENES

IDENTIFIER = "sks"
SEEDS = 10
ASKED = {"space": "in space", "grass": "on grass", "snow": "in the snow"}


@dataclass(frozen=True)
class Recipe:
    """How to personalise: steps of two photos and, with a prior, two class images."""

    steps: int = 300
    learning_rate: float = 1e-4
    prior_weight: float = 1.0
    class_images: int = 48


def load_subject(folder: Path, side_px: int) -> Tensor:
    """Return photos of one folder, centre-cropped, as [N, 3, side, side] in [-1, 1]."""
    squares = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"}):
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            squares.append(np.asarray(square.resize((side_px, side_px), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(squares).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)


@torch.no_grad()
def encode_text(pipeline: StableDiffusionPipeline, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Return the states [N, 16, 128] and the pooled output [N, 128] of prompts."""
    tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    output = pipeline.text_encoder(input_ids=tokens.input_ids)
    return output.last_hidden_state, output.pooler_output


def personalise(
    pipeline: StableDiffusionPipeline, photos: Tensor, classes: Tensor | None, noun: str, recipe: Recipe
) -> None:
    """Train the pipeline's UNet in place on photos and, if given, class images [N, 3, H, W]."""
    with torch.no_grad():
        subject = pipeline.vae.encode(torch.cat([photos, photos.flip(-1)])).latent_dist.mode()
        prior = None if classes is None else pipeline.vae.encode(classes).latent_dist.mode()
    states, _ = encode_text(pipeline, [with_article(f"{IDENTIFIER} {noun}"), with_article(noun)])
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    unet = pipeline.unet.train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    for step in range(recipe.steps):
        generator = torch.Generator().manual_seed(step)
        latents = subject[torch.randint(0, len(subject), (2,), generator=generator)]
        text, weight = states[:1].expand(2, -1, -1), torch.ones(2)
        if prior is not None:
            more = prior[torch.randint(0, len(prior), (2,), generator=generator)]
            latents = torch.cat([latents, more])
            text = torch.cat([text, states[1:].expand(2, -1, -1)])
            weight = torch.cat([weight, torch.full((2,), recipe.prior_weight)])
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(0, 1000, (len(latents),), generator=generator)
        target = scheduler.get_velocity(latents, noise, times)
        prediction = unet(scheduler.add_noise(latents, noise, times), times, text).sample
        loss = (((prediction - target) ** 2).mean((1, 2, 3)) * weight).sum() / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
    unet.eval()


def features(judges: Path, photo_tensors: Tensor) -> Tensor:
    """Return unit tiny-dino features [N, D] of pictures in [-1, 1]."""
    pixels = ((photo_tensors.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    judge = load_judge("tiny-dino", source=str(judges / "tiny-dino"))
    return judge.encode_images([Image.fromarray(image) for image in pixels])


def diversity(unit: Tensor) -> float:
    """Return 1 minus the mean cosine between different rows of unit features."""
    count = len(unit)
    return 1 - float((unit @ unit.T).sum() - count) / (count * (count - 1))


@torch.no_grad()
def scenes_seen(pipeline: StableDiffusionPipeline, judges: Path, noun: str, photo_tensors: Tensor) -> list[str]:
    """Return the scene that tiny-clip finds nearest for each picture, among all scenes the base knows."""
    from safetensors.torch import load_file

    tower = CLIPVisionModelWithProjection.from_pretrained(judges / "tiny-clip", dtype=torch.float32).eval()
    projection = load_file(judges / "tiny-clip" / "text_projection.safetensors")["weight"].float()
    prompts = [f"{with_article(noun)} {phrases[0]}" for _, phrases in SCENES.values()]
    text = F.normalize(encode_text(pipeline, prompts)[1] @ projection.T, dim=-1)
    image = F.normalize(tower(pixel_values=shrink(photo_tensors)).image_embeds, dim=-1)
    return [list(SCENES)[index] for index in (image @ text.T).argmax(1).tolist()]


def examine(
    base: Path, judges: Path, folder: Path, noun: str, recipe: Recipe, with_prior: bool
) -> tuple[dict[str, Any], Tensor]:
    """Personalise once and return the figures, and pictures for the grid: subject, scenes, class after."""
    pipeline = load_pipeline(base)
    photos = load_subject(folder, pipeline.unet.config.sample_size * pipeline.vae_scale_factor)
    subject_prompt, class_prompt = with_article(f"{IDENTIFIER} {noun}"), with_article(noun)
    classes = draw(pipeline, [class_prompt] * recipe.class_images, 7_000)
    before = features(judges, draw(pipeline, [class_prompt] * SEEDS, 0))
    started = time.perf_counter()
    personalise(pipeline, photos, classes if with_prior else None, noun, recipe)
    seconds = time.perf_counter() - started
    drawn = draw(pipeline, [subject_prompt] * SEEDS, 0)
    reference = features(judges, photos)
    nearer = (features(judges, drawn) @ reference.T).mean(1) > (before @ reference.T).mean(1)
    asked = [scene for scene in ASKED for _ in range(4)]
    placed = draw(pipeline, [f"{subject_prompt} {ASKED[scene]}" for scene in asked], 300)
    seen = scenes_seen(pipeline, judges, noun, placed)
    after = draw(pipeline, [class_prompt] * SEEDS, 0)
    after_features = features(judges, after)
    figures = {
        "subject": folder.name,
        "noun": noun,
        "prior": with_prior,
        "seeds_nearer": int(nearer.sum()),
        "dino_subject": float((features(judges, drawn) @ reference.T).mean()),
        "dino_class_before": float((before @ reference.T).mean()),
        "dino_class_after": float((after_features @ reference.T).mean()),
        "scene_changed": sum(a == b for a, b in zip(asked, seen, strict=True)) / len(asked),
        "diversity_before": diversity(before),
        "diversity_after": diversity(after_features),
        "train_seconds": seconds,
    }
    return figures, torch.cat([photos[:4], drawn[:4], placed[::4], after[:4]])


def main() -> None:
    """Personalise the packed base on folders of photos and write figures and grids."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("embedded", type=Path, help="the folder with sd/ and judges/")
    options.add_argument("subjects", nargs="+", help="FOLDER=NOUN")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--steps", type=int, default=Recipe.steps)
    options.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    options.add_argument("--class-images", type=int, default=Recipe.class_images)
    options.add_argument("--without", action="store_true", help="also train each subject without the prior")
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(arguments.steps, arguments.learning_rate, class_images=arguments.class_images)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows, photo_tensors, labels = [], [], []
    for entry in arguments.subjects:
        folder, noun = entry.rsplit("=", 1)
        for with_prior in (True, False) if arguments.without else (True,):
            base, judges = arguments.embedded / "sd", arguments.embedded / "judges"
            figures, shown = examine(base, judges, Path(folder), noun, recipe, with_prior)
            rows.append(figures)
            photo_tensors.append(shown)
            labels += ["photo"] * 4 + [f"sks {noun}"] * 4 + list(ASKED.values()) + [f"a {noun} after"] * 4
            print(json.dumps(figures), flush=True)
            (arguments.out / "dreambooth.json").write_text(json.dumps(rows, indent=2) + "\n")
    labelled_grid(torch.cat(photo_tensors), labels, 15, 80).save(arguments.out / "dreambooth.png", optimize=True)


if __name__ == "__main__":
    main()
