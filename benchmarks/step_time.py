"""Seconds a training step and peak memory, ours alone or in pairs with diffusers' script on the same work."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import has_gpu, machine, write_figures  # noqa: E402
from models import add_size_option, load_once, own_resolution, write_base, write_pictures  # noqa: E402
from pairs import table  # noqa: E402
from peer import CLASS_IMAGES, PHOTOS, SCRIPT_LORA, Peer, Work  # noqa: E402
from program import Project, Timing, Trained  # noqa: E402


class Ours:
    """`dreambooth train` in a project of its own."""

    def __init__(self, root: Path, work: Work) -> None:
        self.work, self.project = work, Project(root / "ours", str(work.base), sorted(work.photos.iterdir()))

    def settings(self) -> dict[str, object]:
        """What the script does: squares, weights and activations as they are, and its adapters' rank and layers."""
        adapters = {**SCRIPT_LORA, "lora.base": "full"} if self.work.method == "lora" else {}
        return {
            **adapters,
            "images.buckets": "off",
            "train.gradient_checkpointing": False,
            "images.resolution": self.work.resolution,
            "train.precision": self.work.precision,
            "train.text_encoder": self.work.trains_text,
            "train.learning_rate": "1e-6",
            "train.optimizer": "adamw",
            "train.checkpoint_every": 0,
            "prior.folder": self.work.class_images,
            "probe.judge": "off",
        }

    def trained(self, steps: int, *words: str) -> Trained:
        return self.project.trained(self.settings(), "--method", self.work.method, "--steps", str(steps), *words)


def steps_alone(short: Timing, long: Timing, steps: int) -> Timing:
    """Seconds a step, of two whole runs that differ by so many steps, and the longer one's peak memory."""
    return Timing(
        (long.seconds - short.seconds) / steps,
        (long.processor_seconds - short.processor_seconds) / steps,
        long.peak_bytes,
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
    base = write_base(root / "base", arguments.size)
    resolution = arguments.resolution or own_resolution(load_once(str(base)))
    photos = write_pictures(root / "photos", PHOTOS, size_px=2 * resolution, seed=1)
    class_images = write_pictures(root / "class", CLASS_IMAGES, size_px=resolution, seed=2)
    work = Work(base, photos, class_images, resolution, arguments.method, arguments.text, arguments.precision)
    ours, peer = Ours(root, work), Peer(root, work, arguments.against) if arguments.against else None
    more = arguments.steps[1] - arguments.steps[0]
    rows = []
    for _ in range(arguments.pairs):
        short, long = (ours.trained(steps) for steps in arguments.steps)
        row = columns("ours", one := steps_alone(short.process, long.process, more))
        row["ours recorded s/step"] = statistics.median(long.step_seconds)
        if has_gpu():
            row["ours GPU GB"] = long.record["peak_memory_bytes"] / 1e9
        if peer is not None:
            other = steps_alone(*(peer.timed(steps) for steps in arguments.steps), more)
            row |= columns("peer", other)
            row["peer/ours"] = other.seconds / one.seconds
            row["peer/ours CPU"] = other.processor_seconds / one.processor_seconds
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", type=lambda text: Path(text).resolve(), help="a peer's training script")
    add_size_option(options)
    options.add_argument("--resolution", type=int, help="pixels per side; the base's own if left out")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the forward pass")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--text", action="store_true", help="train the text encoder too")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--steps", type=int, nargs=2, default=[10, 60], metavar=("SHORT", "LONG"))
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    text = "trained" if arguments.text else "frozen"
    what = f"{arguments.method}, text encoder {text}, base {arguments.size}, {arguments.precision}"
    print(f"{what}; {machine()}\n\n{table(rows)}")
    write_figures(arguments.json, what=what, rows=rows)


if __name__ == "__main__":
    main()
