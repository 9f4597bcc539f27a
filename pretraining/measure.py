"""Measure the packed base: does it draw the noun, scene, colour and style a prompt asks for, and how fast.

An independent classifier, trained on picture sets the base never saw, reads the pictures. Its own accuracy on
composed pictures of the training sets is printed beside, for it is the ceiling of every figure here.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from torch import Tensor

from pretraining.base import labelled_grid
from pretraining.classifier import (
    SCENE_NAMES,
    SEEN_STYLES,
    UNKNOWN,
    Classifier,
    labels_of,
    read,
    train_classifier,
)
from pretraining.clip import to_pixels
from pretraining.compose import with_article
from pretraining.measure_autoencoder import gradient_energy
from pretraining.naming import COLOUR_NAMES, NOUN_NAMES
from pretraining.scenes import SCENES
from pretraining.settings import Run, parser, run_from
from pretraining.styles import STYLES

GUIDANCE = 3.0
STEPS = 25


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load a packed base in float32, without a progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int, guidance: float = GUIDANCE) -> Tensor:
    """Draw one picture a prompt, at the size of the base; return float32 [N, 3, H, W] in [-1, 1]."""
    images = []
    for start in range(0, len(prompts), 20):
        chunk = prompts[start : start + 20]
        made = pipeline(
            chunk,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed + start),
            output_type="np",
        ).images
        images.append(torch.from_numpy(np.asarray(made)).permute(0, 3, 1, 2) * 2 - 1)
    return torch.cat(images)


def ceiling(run: Run, model: Classifier, count: int = 1000) -> list[float]:
    """Return the classifier's accuracy for noun, scene, colour and style on composed pictures of the training sets."""
    images = np.load(run.path("pictures.npy"), mmap_mode="r")[:count]
    entries = json.loads(run.path("captions.json").read_text())[:count]
    labels = torch.tensor([labels_of(*said) for _, *said in entries])
    seen, known = read(model, to_pixels(images)), labels != UNKNOWN
    return [float((seen[:, k] == labels[:, k])[known[:, k]].float().mean()) for k in range(4)]


def measure_nouns(
    pipeline: StableDiffusionPipeline, model: Classifier, each: int
) -> tuple[dict[str, float], dict[str, str], Tensor]:
    """Return, for every noun, the share of pictures read as it, what it was read as, and its first pictures."""
    shares, read_as, shown = {}, {}, []
    for number, noun in enumerate(NOUN_NAMES):
        images = draw(pipeline, [with_article(noun)] * each, 1000 * number)
        seen = read(model, images)[:, 0]
        shares[noun] = float((seen == number).float().mean())
        read_as[noun] = NOUN_NAMES[int(seen.mode().values)]
        shown.append(images[:8])
        print(f"{noun:16} {shares[noun]:.2f} mostly {read_as[noun]}", flush=True)
    return shares, read_as, torch.cat(shown)


def measure_scenes(pipeline: StableDiffusionPipeline, model: Classifier, each: int) -> dict[str, float]:
    """Return, for every scene, the share of pictures of changing nouns that are read as in that scene."""
    shares = {}
    for number, (scene, (_, phrases)) in enumerate(SCENES.items()):
        nouns = [NOUN_NAMES[(3 * number + 5 * k) % len(NOUN_NAMES)] for k in range(each)]
        images = draw(pipeline, [f"{with_article(noun)} {phrases[0]}" for noun in nouns], 50_000 + 100 * number)
        shares[scene] = float((read(model, images)[:, 1] == SCENE_NAMES.index(scene)).float().mean())
        print(f"{scene:16} {shares[scene]:.2f}", flush=True)
    return shares


def measure_colours(pipeline: StableDiffusionPipeline, model: Classifier, each: int) -> dict[str, float]:
    """Return, for every colour, the share of pictures of changing nouns that are read as of that colour."""
    shares = {}
    for number, colour in enumerate(COLOUR_NAMES):
        nouns = [NOUN_NAMES[(2 * number + 5 * k) % len(NOUN_NAMES)] for k in range(each)]
        images = draw(pipeline, [f"a {colour} {noun}" for noun in nouns], 90_000 + 100 * number)
        shares[colour] = float((read(model, images)[:, 2] == number).float().mean())
        print(f"{colour:16} {shares[colour]:.2f}", flush=True)
    return shares


def measure_styles(pipeline: StableDiffusionPipeline, model: Classifier, each: int) -> dict[str, float]:
    """Return, for every style the classifier knows, the share of pictures of changing nouns that are read as in it."""
    shares = {}
    for number, style in enumerate(SEEN_STYLES):
        nouns = [NOUN_NAMES[(2 * number + 5 * k) % len(NOUN_NAMES)] for k in range(each)]
        prompts = [f"{STYLES[style]} {with_article(noun)}" for noun in nouns]
        seen = read(model, draw(pipeline, prompts, 120_000 + 100 * number))[:, 3]
        shares[style] = float((seen == number).float().mean())
        print(f"{style:16} {shares[style]:.2f}", flush=True)
    return shares


def mean(shares: dict[str, float]) -> float:
    """Return the mean of shares."""
    return sum(shares.values()) / len(shares)


def crispness(run: Run, images: Tensor) -> dict[str, float]:
    """Return the gradient energy of drawn pictures [N, 3, H, W], of pictures of the corpus, and their ratio."""
    corpus = to_pixels(np.load(run.path("pictures.npy"), mmap_mode="r")[: len(images)])
    if corpus.shape != images.shape:
        corpus = F.interpolate(corpus, size=images.shape[2:], mode="area")
    drawn, real = gradient_energy(images), gradient_energy(corpus)
    return {"gradient": drawn, "gradient_of_corpus": real, "crispness": drawn / real}


def figures_of(run: Run, base: Path, model: Classifier, each: int) -> tuple[dict[str, Any], Tensor]:
    """Return every figure of a packed base, and the first pictures of every noun."""
    best = ceiling(run, model)
    print(
        "classifier on composed pictures (noun, scene, colour, style):", *(f"{value:.3f}" for value in best), flush=True
    )
    started = time.perf_counter()
    pipeline = load_pipeline(base)
    loading = time.perf_counter() - started
    started = time.perf_counter()
    draw(pipeline, ["a dog"] * 8, 0)
    drawing = time.perf_counter() - started
    nouns, read_as, shown = measure_nouns(pipeline, model, each)
    scenes = measure_scenes(pipeline, model, max(1, each // 2))
    colours = measure_colours(pipeline, model, max(1, each // 2))
    styles = measure_styles(pipeline, model, each)
    figures = {
        "classifier_ceiling": dict(zip(("noun", "scene", "colour", "style"), best, strict=True)),
        "noun": mean(nouns),
        "scene": mean(scenes),
        "colour": mean(colours),
        "style": mean(styles),
        **crispness(run, shown),
        "load_seconds": loading,
        "eight_pictures_seconds": drawing,
        "nouns": nouns,
        "read_as": read_as,
        "scenes": scenes,
        "colours": colours,
        "styles": styles,
    }
    return figures, shown


def main() -> None:
    """Measure a packed base with the independent classifier; write figures and contact sheets."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("base", type=Path, help="a diffusers folder, such as dbcli/embedded/sd")
    options.add_argument("--out", type=Path, required=True, help="folder for figures.json and the contact sheet")
    options.add_argument("--each", type=int, default=20, help="pictures of every noun")
    options.add_argument("--classifier-seconds", type=float, default=240)
    arguments = options.parse_args()
    run = run_from(arguments)
    model = train_classifier(run, arguments.classifier_seconds, 256 if arguments.toy else 12_000)
    figures, shown = figures_of(run, arguments.base, model, arguments.each)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    labels = [with_article(noun) for noun in NOUN_NAMES for _ in range(min(8, arguments.each))]
    labelled_grid(shown, labels, 16, 64).save(arguments.out / "nouns.png", optimize=True)
    print(json.dumps({name: figures[name] for name in ("noun", "scene", "colour", "style", "crispness")}))


if __name__ == "__main__":
    main()
