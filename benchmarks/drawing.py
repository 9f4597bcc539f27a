"""Seconds to draw 8 pictures in 50 DDIM steps, in pairs with plain diffusers on the same base and noise."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import add_size_option, write_base  # noqa: E402
from pairs import table  # noqa: E402

PROMPT = "a photo of a sks dog"


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(draw: Callable[[], Any]) -> tuple[Any, float, float]:
    """What was drawn, wall seconds, and processor seconds of all threads."""
    wall, processor = time.perf_counter(), processor_seconds()
    drawn = draw()
    return drawn, time.perf_counter() - wall, processor_seconds() - processor


def ours(base: Any, arguments: argparse.Namespace, folder: Path) -> Any:
    """Pictures `[N, 3, H, W]`, and each of them as a PNG, as `dreambooth generate` writes it."""
    import torch

    from dbcli.diffusion.images import to_image
    from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images
    from dbcli.workflows.images.image_writer import image_writer

    size = base.resolution
    how = SamplingSettings("ddim", arguments.steps, arguments.guidance, 0.0, size, size, arguments.batch)
    orders = [SampleRequest(PROMPT, seed) for seed in range(arguments.count)]
    images = {}
    with image_writer() as write_later:
        for index, pixels in sample_images(base, orders, how):
            write_later(lambda path, pixels: to_image(pixels).save(path), folder / f"ours-{index}.png", pixels)
            images[index] = pixels
    return torch.stack([images[index] for index in range(arguments.count)])


def plain(pipeline: Any, arguments: argparse.Namespace, folder: Path) -> Any:
    """The same by StableDiffusionPipeline."""
    import torch

    drawn = []
    for start in range(0, arguments.count, arguments.plain_batch):
        seeds = range(start, min(start + arguments.plain_batch, arguments.count))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pixels = pipeline(
            [PROMPT] * len(generators),
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance,
            generator=generators,
            output_type="pt",
        ).images
        for seed, image in zip(seeds, pipeline.image_processor.pt_to_numpy(pixels), strict=True):
            pipeline.image_processor.numpy_to_pil(image)[0].save(folder / f"plain-{seed}.png")
        drawn.append(pixels)
    return torch.cat(drawn).float().cpu() * 2 - 1


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, float]]:
    """One row a pair; A B and B A by turns, so that a machine that warms up favours neither."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from dbcli.diffusion.bases.base import load_base

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    folder = write_base(root / "base", arguments.size)
    base = load_base(str(folder), device=device, dtype=dtype)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=dtype).to(device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for number in range(arguments.pairs):
        sides = {"ours": lambda: ours(base, arguments, root), "plain": lambda: plain(pipeline, arguments, root)}
        results = {name: timed(sides[name]) for name in sorted(sides, reverse=bool(number % 2))}
        row = {f"{name} s": wall for name, (_, wall, _) in results.items()}
        row |= {f"{name} CPU s": used for name, (_, _, used) in results.items()}
        row["plain/ours"] = row["plain s"] / row["ours s"]
        row["plain/ours CPU"] = row["plain CPU s"] / row["ours CPU s"]
        difference = results["ours"][0].clamp(-1, 1) - results["plain"][0]
        row["largest difference of 2"] = float(difference.abs().max())
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    add_size_option(options)
    options.add_argument("--count", type=int, default=8, help="pictures")
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--batch", type=int, default=8, help="pictures that we draw at once")
    options.add_argument("--plain-batch", type=int, default=1, help="pictures a call of the pipeline")
    options.add_argument("--guidance", type=float, default=7.5)
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    print(f"{arguments.count} pictures, {arguments.steps} DDIM steps; {machine()}\n\n{table(rows)}")
    write_figures(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
