"""How the cost of a whole run grows: photos, class images, steps and resolution doubled, one at a time."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import add_base_options, chosen_base, load_once, own_resolution, write_pictures  # noqa: E402
from program import Project, Trained, phases  # noqa: E402

SMALL = "small"


@dataclass(frozen=True)
class Setting:
    """What one run is given."""

    photos: int
    class_images: int
    steps: int
    resolution: int

    def __str__(self) -> str:
        counts = f"{self.photos} photos, {self.class_images} class images, {self.steps} steps"
        return f"{counts}, {self.resolution} px"


@dataclass(frozen=True)
class Axis:
    """What is doubled of a setting, the phases of a run that do that work, and the ratio that is aimed at."""

    field: str
    phases: tuple[str, ...]
    at_most: float = 2


AXES = {
    "photos": Axis("photos", ("encode",)),
    "class images": Axis("class_images", ("class images",)),
    "steps": Axis("steps", ("steps",)),
    "resolution": Axis("resolution", ("class images", "encode", "steps"), at_most=4.5),
}
Figures = Mapping[str, float]


def doubled(setting: Setting, axis: Axis) -> Setting:
    """The same with twice as much of one thing."""
    return replace(setting, **{axis.field: 2 * getattr(setting, axis.field)})


def figures(trained: Trained) -> Figures:
    """Seconds of one run: by the clock, of all processors, and of each phase."""
    process = trained.process
    return {"whole": process.seconds, "processors": process.processor_seconds, **phases(trained)}


def one_run(project: Project, setting: Setting, arguments: argparse.Namespace) -> Figures:
    """Trains with so much of everything."""
    settings = {
        "images.resolution": setting.resolution,
        "train.precision": arguments.precision,
        "train.text_encoder": arguments.text,
        "train.checkpoint_every": 0,
        "prior.images": setting.class_images,
        "prior.steps": arguments.draw_steps,
        "probe.judge": "off",
    }
    return figures(project.trained(settings, "--method", arguments.method, "--steps", str(setting.steps)))


def measure(arguments: argparse.Namespace, root: Path) -> tuple[Setting, list[dict[str, Figures]]]:
    """The small setting, and for each round the figures of it and of what is doubled; every other round backwards."""
    base = load_once(chosen_base(arguments, root / "base"))
    resolution = arguments.resolution or own_resolution(base)
    small = Setting(arguments.photos, arguments.class_images, arguments.steps, resolution)
    runs = {SMALL: small, **{name: doubled(small, AXES[name]) for name in arguments.double}}
    photos = sorted(write_pictures(root / "photos", 2 * small.photos, size_px=2 * resolution, seed=1).iterdir())
    projects = {name: Project(root / f"project, {name}", base, photos[: one.photos]) for name, one in runs.items()}
    rounds = []
    for number in range(arguments.pairs):
        names = list(runs)[:: -1 if number % 2 else 1]
        found = {name: one_run(projects[name], runs[name], arguments) for name in names}
        rounds.append({name: found[name] for name in runs})
        print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    return small, rounds


@dataclass(frozen=True)
class Growth:
    """Seconds before and after doubling, medians of all rounds, and the median of the rounds' ratios."""

    before: float
    after: float
    ratio: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Growth:
        before, after = zip(*pairs, strict=True)
        ratio = statistics.median(two / max(one, 1e-9) for one, two in pairs)
        return cls(statistics.median(before), statistics.median(after), ratio)


def growths(name: str, rounds: Sequence[Mapping[str, Figures]]) -> dict[str, Growth]:
    """How a whole run grew, by the clock and in time of processors, and its phases that do more work."""
    parts = {"whole": ("whole",), "processors": ("processors",), "phases": AXES[name].phases}
    return {
        part: Growth.of([tuple(sum(one[side][key] for key in keys) for side in (SMALL, name)) for one in rounds])
        for part, keys in parts.items()
    }


def table(small: Setting, rounds: Sequence[Mapping[str, Figures]]) -> str:
    """A row for each thing that was doubled, as Markdown."""
    lines = [
        "| doubled | from → to | whole run, s | ratio | processors, s | ratio | phases | s | ratio | at most |",
        "|" + "---|" * 10,
    ]
    for name in (name for name in rounds[0] if name != SMALL):
        axis, found = AXES[name], growths(name, rounds)
        size = getattr(small, axis.field)
        cells = {part: f"{one.before:.3g} → {one.after:.3g} | {one.ratio:.2f}" for part, one in found.items()}
        lines.append(
            f"| {name} | {size} → {2 * size} | {cells['whole']} | {cells['processors']} | "
            f"{', '.join(axis.phases)} | {cells['phases']} | {axis.at_most:g} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    add_base_options(options)
    options.add_argument("--double", nargs="+", choices=list(AXES), default=list(AXES), help="what is doubled")
    options.add_argument("--photos", type=int, default=16)
    options.add_argument("--class-images", type=int, default=8)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--resolution", type=int, help="pixels per side; the base's own if left out")
    options.add_argument("--draw-steps", type=int, default=10, help="sampler steps of a class image")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the forward pass")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--text", action="store_true", help="train the text encoder too")
    options.add_argument("--pairs", type=int, default=3, help="how often all of it is measured")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, rounds = measure(arguments, Path(folder).resolve())
    text = "trained" if arguments.text else "frozen"
    what = f"{arguments.method}, text encoder {text}, {arguments.precision}, {small}"
    print(f"{what}; {machine()}\n\n{table(small, rounds)}")
    found = {name: {part: asdict(one) for part, one in growths(name, rounds).items()} for name in arguments.double}
    write_figures(arguments.json, small=asdict(small), rounds=rounds, growth=found)


if __name__ == "__main__":
    main()
