"""From typing to the last of 8 images: ours beside diffusers' script and a pipeline that draws the same, in pairs.

Both sides train the same photos of one subject on the same base with as many steps and rows, draw their own class
images first, and end with eight images on disk. Whole processes are timed, A B and B A by turns.

Unless ours is taken as shipped, both do the same work: they send as many images through the network before the first
step of training, the script 32 class images, ours also the scenes that it sets photos into, each in fewer sampling
steps; and a LoRA is of the script's rank and layers. Each computes as a person starts it: ours in bf16 where the
processor does, the script in float32.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import load_once, own_resolution  # noqa: E402
from peer import SCRIPT_LORA, adamw_rate, script_command  # noqa: E402
from program import PROGRAM, Project, Timing, timed  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
IMAGES, SEED, SCRIPT_CLASS_STEPS = 8, 1, 50
PROMPT, CLASS_PROMPT = "a photo of a sks dog", "a photo of a dog"
# As the documentation of diffusers has one draw with the result of its scripts, all images in one call.
PIPELINE = """
import json, sys, torch
from diffusers import DDIMScheduler, DiffusionPipeline
job = json.loads(sys.argv[1])
pipeline = DiffusionPipeline.from_pretrained(job["folder"], safety_checker=None)
pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
if job["lora"]:
    pipeline.load_lora_weights(job["lora"])
images = pipeline(job["prompt"], num_images_per_prompt=job["count"], num_inference_steps=job["steps"],
                  guidance_scale=job["guidance"], generator=torch.Generator().manual_seed(1)).images
for number, image in enumerate(images):
    image.save(f"{job['out']}/{number}.png")
"""


@dataclass(frozen=True)
class Job:
    """What both sides do: the base's folder, photos, method and steps, and what the profile says of rows and images."""

    base: Path
    photos: Sequence[Path]
    method: str
    steps: int
    profile: Mapping[str, Mapping[str, object]]
    resolution: int
    sets: Sequence[str]


class Ours:
    """`dreambooth train`, then `dreambooth generate`, in a project whose subject was added before."""

    def __init__(self, root: Path, job: Job, base: str) -> None:
        self.job, self.project = job, Project(root / "ours", base, job.photos)

    def took(self) -> Timing:
        folder = self.project.folder
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        words = ["train", "--subject", "dog", "--method", self.job.method, "--steps", str(self.job.steps)]
        trained = timed([*PROGRAM, *words, *(f"--set={one}" for one in self.job.sets)], folder)
        drawn = timed([*PROGRAM, "generate", "a photo of a {dog}", "-n", str(IMAGES), "--seed", str(SEED)], folder)
        if len(list(folder.glob("runs/*/images/*.png"))) != IMAGES:
            raise RuntimeError("Our side made another number of images.")
        self.project.emptied()
        return together(trained, drawn)


class Theirs:
    """diffusers' script, then its pipeline."""

    def __init__(self, root: Path, job: Job, script: Path) -> None:
        self.job, self.script, self.folder = job, script, root / "theirs"
        (self.folder / "photos").mkdir(parents=True)
        for photo in job.photos:
            shutil.copy(photo, self.folder / "photos")

    def took(self) -> Timing:
        out, images = self.folder / "out", self.folder / "images"
        for one in (out, images, self.folder / "class"):
            shutil.rmtree(one, ignore_errors=True)
        images.mkdir()
        trained = timed(self._training(out), self.folder)
        is_lora, draw = self.job.method == "lora", self.job.profile["draw"]
        job = {
            "folder": str(self.job.base if is_lora else out),
            "lora": str(out) if is_lora else None,
            "prompt": PROMPT,
            "count": IMAGES,
            "steps": draw["steps"],
            "guidance": draw["guidance"],
            "out": str(images),
        }
        drawn = timed([sys.executable, "-c", PIPELINE, json.dumps(job)], self.folder)
        if len(list(images.glob("*.png"))) != IMAGES:
            raise RuntimeError("The other side made another number of images.")
        return together(trained, drawn)

    def _training(self, out: Path) -> list[str]:
        train, prior = self.job.profile["train"], self.job.profile["prior"]
        options = {
            "pretrained_model_name_or_path": self.job.base,
            "instance_data_dir": self.folder / "photos",
            "class_data_dir": self.folder / "class",
            "instance_prompt": PROMPT,
            "class_prompt": CLASS_PROMPT,
            "num_class_images": prior["images"],
            "sample_batch_size": prior["batch_size"],
            "prior_loss_weight": prior["weight"],
            "resolution": self.job.resolution,
            "train_batch_size": train["batch_size"],
            "learning_rate": adamw_rate(self.job.method, train),
            "max_train_steps": self.job.steps,
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "checkpointing_steps": train["checkpoint_every"],
            "seed": 0,
            "output_dir": out,
        }
        return script_command(self.script, options)


def together(*parts: Timing) -> Timing:
    """Processes one after the other: their seconds added, and the most memory of any."""
    return Timing(
        sum(one.seconds for one in parts),
        sum(one.processor_seconds for one in parts),
        max(one.peak_bytes for one in parts),
    )


def equal_steps(profile: Mapping[str, Mapping[str, Any]], photos: int) -> int:
    """Sampling steps with which class images and scenes take as many passes as the script's class images alone."""
    class_images, scenes = profile["prior"]["images"], profile["images"]["scene_cutouts"] * photos
    steps: int = SCRIPT_CLASS_STEPS * class_images // (class_images + scenes)
    return steps


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, float]]:
    """A row a pair."""
    from dbcli.diffusion.bases.folder import embedded_folder
    from dbcli.project.settings.profiles import load_profile

    profile = load_profile({"full": "tiny", "lora": "tiny-lora"}[arguments.method])
    sets = list(arguments.set)
    photos = sorted((ROOT / "dbcli/embedded/photos" / arguments.subject).glob("*.png"))[:5]
    if not arguments.as_shipped:
        equal: dict[str, object] = {"prior.steps": equal_steps(profile, len(photos))}
        equal |= SCRIPT_LORA if arguments.method == "lora" else {}
        sets += [f"{key}={value}" for key, value in equal.items()]
    steps = arguments.steps or int(profile["train"]["steps"])
    resolution = own_resolution(load_once("tiny"))
    job = Job(embedded_folder(), photos, arguments.method, steps, profile, resolution, sets)
    sides: dict[str, Callable[[], Timing]] = {
        "ours": Ours(root, job, "tiny").took,
        "theirs": Theirs(root, job, arguments.script.resolve()).took,
    }
    rows = []
    for number in range(arguments.pairs):
        took = {name: sides[name]() for name in sorted(sides, reverse=bool(number % 2))}
        row = {f"{name} s": one.seconds for name, one in took.items()}
        row |= {f"{name} CPU s": one.processor_seconds for name, one in took.items()}
        row |= {f"{name} GB": one.peak_bytes / 1e9 for name, one in took.items()}
        row["theirs/ours"] = took["theirs"].seconds / took["ours"].seconds
        row["theirs/ours CPU"] = took["theirs"].processor_seconds / took["ours"].processor_seconds
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def line(rows: Sequence[Mapping[str, float]]) -> str:
    """Medians as a row of Markdown, and in brackets the smallest and the largest."""

    def spread(key: str) -> str:
        values = [row[key] for row in rows]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    return "| " + " | ".join(spread(key) for key in sorted(rows[0])) + " |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("script", type=Path, help="diffusers' train_dreambooth.py, or with lora its twin")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--steps", type=int, help="of training, on both sides; the profile's if left out")
    options.add_argument(
        "--as-shipped",
        action="store_true",
        help="class images in the steps, and a LoRA of the rank and layers, of the profile; else both do the same work",
    )
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of dreambooth train")
    options.add_argument("--subject", default="patch", help="one of the bundled subjects")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    print(f"{arguments.method}, {arguments.steps or 'its own'} steps; {arguments.pairs} pairs; {machine()}\n")
    print("| " + " | ".join(sorted(rows[0])) + " |\n|" + "---|" * len(rows[0]))
    print(line(rows))
    write_figures(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
