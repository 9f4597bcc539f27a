"""Seconds a training step and peak memory, ours alone or in pairs with diffusers' script on the same work."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import write_base, write_pictures  # noqa: E402
from pairs import table  # noqa: E402

RESOLUTION = 128
PHOTOS, CLASS_IMAGES = 4, 8
PROMPT, CLASS_PROMPT = "a photo of a sks dog", "a photo of a dog"


@dataclass(frozen=True)
class Timing:
    """One whole process: wall seconds, processor seconds of all its threads, and the most memory it held."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def timed(command: list[str], folder: Path) -> Timing:
    """Runs a command to its end; raises RuntimeError with its last words if it fails."""
    log = folder / "log.txt"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{' '.join(command[:4])} …\n{log.read_text(errors='replace')[-2000:]}")
    return Timing(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


class Ours:
    """`dreambooth train` in a project of its own."""

    def __init__(self, root: Path, base: Path, photos: Path, class_images: Path, method: str, text: bool) -> None:
        self.folder, self.method, self.text, self.class_images = root / "ours", method, text, class_images
        program = [sys.executable, "-m", "dbcli.cli.app", "--quiet"]
        self.program = program
        subprocess.run([*program, "init", str(self.folder), "--base", str(base)], check=True, stdout=subprocess.DEVNULL)
        add = ["add-subject", "dog", "--class", "dog", str(photos), "--token", "sks"]
        subprocess.run([*program, *add], check=True, cwd=self.folder, stdout=subprocess.DEVNULL)

    def command(self, steps: int) -> list[str]:
        settings = {
            "train.text_encoder": str(self.text).lower(),
            "train.learning_rate": "1e-6",
            "train.checkpoint_every": "0",
            "prior.folder": str(self.class_images),
        }
        sets = [f"--set={key}={value}" for key, value in settings.items()]
        return [*self.program, "train", "--subject", "dog", "--method", self.method, "--steps", str(steps), *sets]


class Peer:
    """diffusers' script with the same base, pictures, batch, precision and rate."""

    def __init__(self, root: Path, base: Path, photos: Path, class_images: Path, script: Path, text: bool) -> None:
        self.folder = root / "peer"
        self.folder.mkdir()
        self.base, self.photos, self.class_images, self.script, self.text = base, photos, class_images, script, text

    def command(self, steps: int) -> list[str]:
        options = {
            "pretrained_model_name_or_path": self.base,
            "instance_data_dir": self.photos,
            "class_data_dir": self.class_images,
            "instance_prompt": PROMPT,
            "class_prompt": CLASS_PROMPT,
            "num_class_images": CLASS_IMAGES,
            "resolution": RESOLUTION,
            "train_batch_size": 1,
            "learning_rate": "1e-6",
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "max_train_steps": steps,
            "checkpointing_steps": 1_000_000,
            "mixed_precision": "no",
            "seed": 0,
            "output_dir": self.folder / "out",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        flags = ["--with_prior_preservation", *(["--train_text_encoder"] if self.text else [])]
        return [sys.executable, str(self.script), *words, *flags]


def steps_alone(side: Ours | Peer, short: int, long: int) -> Timing:
    """Seconds a step from two whole runs of different length, and the longer one's peak memory."""
    first, second = (timed(side.command(steps), side.folder) for steps in (short, long))
    steps = long - short
    return Timing(
        (second.seconds - first.seconds) / steps,
        (second.processor_seconds - first.processor_seconds) / steps,
        second.peak_bytes,
    )


def columns(name: str, timing: Timing) -> dict[str, float]:
    """One side's figures of a pair."""
    return {
        f"{name} s/step": timing.seconds,
        f"{name} CPU s/step": timing.processor_seconds,
        f"{name} GB": timing.peak_bytes / 1e9,
    }


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, float]]:
    """One row a pair."""
    base = write_base(root / "base")
    photos = write_pictures(root / "photos", PHOTOS, size_px=256, seed=1)
    class_images = write_pictures(root / "class", CLASS_IMAGES, size_px=RESOLUTION, seed=2)
    ours = Ours(root, base, photos, class_images, arguments.method, arguments.text)
    peer = Peer(root, base, photos, class_images, arguments.against, arguments.text) if arguments.against else None
    rows = []
    for _ in range(arguments.pairs):
        row = columns("ours", one := steps_alone(ours, *arguments.steps))
        if peer is not None:
            row |= columns("peer", other := steps_alone(peer, *arguments.steps))
            row["peer/ours"] = other.seconds / one.seconds
            row["peer/ours CPU"] = other.processor_seconds / one.processor_seconds
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", type=lambda text: Path(text).resolve(), help="a peer's training script")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--text", action="store_true", help="train the text encoder too")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--steps", type=int, nargs=2, default=[10, 60], metavar=("SHORT", "LONG"))
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    import torch

    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"{arguments.method}, text encoder {'trained' if arguments.text else 'frozen'}; {machine}\n\n{table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
