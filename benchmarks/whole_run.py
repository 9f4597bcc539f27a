"""Seconds of one whole `dreambooth train`, class images drawn anew, phase by phase."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import add_base_options, chosen_base, load_once, own_resolution, write_pictures  # noqa: E402
from program import Project, phases  # noqa: E402

PHOTOS = 4


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, float]]:
    """The phases of each run, its memory at the peak in bytes, and the median of its steps."""
    base = load_once(chosen_base(arguments, root / "base"))
    resolution = arguments.resolution or own_resolution(base)
    photos = sorted(write_pictures(root / "photos", PHOTOS, size_px=2 * resolution, seed=1).iterdir())
    settings = {
        "images.resolution": resolution,
        "train.precision": arguments.precision,
        "train.text_encoder": arguments.text,
        "prior.images": arguments.class_images,
        "probe.judge": "off",
    }
    words = ["--method", arguments.method, "--steps", str(arguments.steps), *(f"--set={one}" for one in arguments.set)]
    project, runs = Project(root / "project", base, photos), []
    for _ in range(arguments.runs):
        trained = project.trained(settings, *words)
        told = {"peak bytes": trained.record["peak_memory_bytes"], "a step": statistics.median(trained.step_seconds)}
        took, whole = phases(trained), trained.process.seconds
        runs.append({**took, "whole command": whole, "all but class images": whole - took["class images"], **told})
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    return runs


def table(runs: Sequence[Mapping[str, float]], counts: Mapping[str, int]) -> str:
    """Medians of all runs as Markdown; `counts` says how many pieces of work a phase had."""
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    peak, step = medians.pop("peak bytes"), medians.pop("a step")
    lines = ["| phase | s | share | of what |", "|---|---|---|---|"]
    for name, seconds in medians.items():
        count = counts.get(name)
        what = "" if count is None else f"{count}, {1000 * seconds / count:,.1f} ms each"
        lines.append(f"| {name} | {seconds:.3g} | {seconds / medians['whole command']:.0%} | {what} |")
    lines += ["", f"The median step takes {1000 * step:,.1f} ms. Peak memory {peak / 1e9:.2f} GB."]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    add_base_options(options)
    options.add_argument("--steps", type=int, default=800)
    options.add_argument("--class-images", type=int, default=100)
    options.add_argument("--resolution", type=int, help="pixels per side; the base's own if left out")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the forward pass")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--text", action="store_true", help="train the text encoder too")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of dreambooth train")
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(arguments, Path(folder).resolve())
    encoded = PHOTOS + arguments.class_images
    counts = {"class images": arguments.class_images, "encode": encoded, "steps": arguments.steps}
    text = "trained" if arguments.text else "frozen"
    what = f"{arguments.method}, text encoder {text}, {arguments.precision}"
    print(f"{what}; {machine()}\n\n{table(runs, counts)}")
    write_figures(arguments.json, what=what, counts=counts, runs=runs)


if __name__ == "__main__":
    main()
