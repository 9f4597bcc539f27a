"""How commands grow with what a project holds: hundreds of photos, class images and cells of a sweep, on `tiny`.

    python benchmarks/growth_counts.py --counts "class images=64,250,1000" "cells=25,100,200"

Each count has a project of its own. Processor seconds of whole commands, since these take minutes and machines are
seldom quiet for so long, the most memory of any, and the exponent between the first count and the last.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import write_pictures  # noqa: E402
from program import PROGRAM, Timing, said, timed  # noqa: E402

BASE, PHOTO_PX, PHOTOS = "tiny", 320, 4
ONE_STEP = ["--steps", "1", "--set=probe.judge=off", "--set=train.checkpoint_every=0"]
Commands = dict[str, Timing]


def photos(folder: Path, count: int) -> Commands:
    """Adding so many photos with masks and captions, and a run of one step on them."""
    added = _with_photos(folder, count)
    return {"add-subject": added, "train, one step": _run(folder, "train", *ONE_STEP, "--set=prior.images=8")}


def class_images(folder: Path, count: int) -> Commands:
    """A run of one step that draws so many class images, and one that finds them."""
    _with_photos(folder, PHOTOS)
    words = ["train", *ONE_STEP, f"--set=prior.images={count}"]
    return {"train, images drawn": _run(folder, *words), "train, images found": _run(folder, *words)}


def cells(folder: Path, count: int) -> Commands:
    """A sweep of so many cells of one step, and the same once more: nothing to train, tables and pages again."""
    _with_photos(folder, PHOTOS)
    file = folder / "cells.yaml"
    file.write_text(
        "name: cells\nprofile: tiny-lora\n"
        "settings: {train.steps: 1, prior.enabled: false, images.scene_cutouts: 0}\n"
        'pictures: {prompts: ["a {identifier} {class}"], count: 1, seed: 1}\n'
        f"grid: {{subject: [dog], train.seed: [{', '.join(map(str, range(count)))}]}}\n",
        encoding="utf-8",
    )
    return {name: _run(folder, "sweep", str(file)) for name in ("sweep", "sweep, all cells finished")}


AXES: Mapping[str, Callable[[Path, int], Commands]] = {"photos": photos, "class images": class_images, "cells": cells}


def _with_photos(folder: Path, count: int) -> Timing:
    """A new project whose dog has so many photos; what adding them took."""
    said(folder.parent, "init", str(folder), "--base", BASE)
    files = sorted(write_pictures(folder.parent / f"{folder.name} photos", count, size_px=PHOTO_PX, seed=1).iterdir())
    return _run(folder, "add-subject", "dog", "--class", "dog", *map(str, files), "--token", "sks")


def _run(folder: Path, *words: str) -> Timing:
    return timed([*PROGRAM, "--yes", *words], folder)


def exponent(first: tuple[int, float], last: tuple[int, float]) -> float:
    """Of seconds as a power of the count."""
    return math.log(last[1] / first[1]) / math.log(last[0] / first[0])


def table(found: Mapping[str, Mapping[int, Commands]]) -> str:
    """A row for each command, as Markdown."""
    lines = ["| what grows | command | count: processor s, peak GB | exponent |", "|---|---|---|---|"]
    for axis, by_count in found.items():
        counts = sorted(by_count)
        for name in by_count[counts[0]]:
            took = {count: by_count[count][name] for count in counts}
            cells = " · ".join(
                f"{count}: {one.processor_seconds:.1f}, {one.peak_bytes / 1e9:.2f}" for count, one in took.items()
            )
            ends = [(count, took[count].processor_seconds) for count in (counts[0], counts[-1])]
            lines.append(f"| {axis} | `{name}` | {cells} | {exponent(ends[0], ends[1]):.2f} |")
    return "\n".join(lines)


def wanted(words: Sequence[str]) -> dict[str, list[int]]:
    """`axis=4,8` as the counts of an axis; at least two, since an exponent has two ends."""
    found = {}
    for word in words:
        axis, _, counts = word.partition("=")
        if axis not in AXES or len(set(counts.split(","))) < 2:
            raise SystemExit(f"--counts {word!r}: one of {', '.join(AXES)}, and two counts or more, like photos=5,50.")
        found[axis] = sorted({int(one) for one in counts.split(",")})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--counts",
        nargs="+",
        default=["photos=50,500", "class images=64,250,1000", "cells=25,100,200"],
        metavar="AXIS=N,N",
        help=f"of {', '.join(AXES)}",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    found: dict[str, dict[int, Commands]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for axis, counts in wanted(options.counts).items():
            for count in counts:
                root = Path(folder).resolve() / f"{axis} {count}"
                found.setdefault(axis, {})[count] = AXES[axis](root, count)
                took = {name: round(one.processor_seconds, 1) for name, one in found[axis][count].items()}
                print(json.dumps({"what": f"{count} {axis}", **took}), file=sys.stderr, flush=True)
    print(f"{machine()}\n\n{table(found)}")
    rows = [
        {"axis": axis, "count": count, "command": name, "seconds": one.processor_seconds, "bytes": one.peak_bytes}
        for axis, by_count in found.items()
        for count, commands in by_count.items()
        for name, one in commands.items()
    ]
    write_figures(options.json, rows=rows)


if __name__ == "__main__":
    main()
