"""Memory at its peak of whole runs, rung by rung, beside diffusers' own scripts on the same work.

Beside it what `--dry-run` estimates, how far the losses are from those of the first rung, and seconds a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from full_size import LOAD  # noqa: E402
from machine import machine, write_figures  # noqa: E402
from memory import recipes  # noqa: E402
from models import add_size_option, write_base, write_pictures  # noqa: E402
from peer import CLASS_IMAGES, PHOTOS, Peaks, Peer, Work  # noqa: E402
from program import as_options, said, timed  # noqa: E402
from step_time import Ours  # noqa: E402

COLUMNS = ("estimate GB", "GB", "estimate/measured", "of the script's", "of its steps'", "loss differs by", "s/step")


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """One row for the script, where one is given, and one a rung of the method."""
    base = (arguments.base or write_base(root / "base", arguments.size)).resolve()
    # In a process of its own: what this one holds is no longer free for the others.
    timed([sys.executable, "-c", LOAD, str(base)], root)
    photos = write_pictures(root / "photos", PHOTOS, size_px=2 * arguments.resolution, seed=1)
    class_images = write_pictures(root / "class", CLASS_IMAGES, size_px=arguments.resolution, seed=2)
    work = Work(base, photos, class_images, arguments.resolution, arguments.method, arguments.text, "fp32")
    rows: list[dict[str, Any]] = []
    peaks = Peer(root, work, arguments.against).peaks(arguments.steps) if arguments.against else None
    if peaks is not None:
        rows.append({"what": "the script", "GB": peaks.whole / 1e9, "GB in its steps": peaks.in_steps / 1e9})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    ours, plain = Ours(root, work), None
    for name, words in recipes().items():
        if words[1] == arguments.method and (not arguments.rungs or name in arguments.rungs):
            words = [*words[2:], *(f"--set={one}" for one in arguments.set)]
            row, losses = rung(ours, name, words, arguments.steps, peaks)
            plain = plain or losses
            row["loss differs by"] = max(abs(one - other) for one, other in zip(losses, plain, strict=True))
            rows.append(row | {"losses": losses})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def rung(
    ours: Ours, name: str, words: list[str], steps: int, peaks: Peaks | None
) -> tuple[dict[str, Any], list[float]]:
    """What a rung was estimated to take and took, and its losses."""
    options = [*as_options(ours.settings()), "--method", ours.work.method, "--steps", str(steps), *words]
    foretold = said(ours.project.folder, "train", "--subject", "dog", *options, "--dry-run")["outlook"]["recipes"][0]
    trained = ours.trained(steps, *words)
    peak = trained.process.peak_bytes
    row = {
        "what": name,
        "estimate GB": foretold["peak_memory_bytes"] / 1e9,
        "GB": peak / 1e9,
        "estimate/measured": foretold["peak_memory_bytes"] / peak,
        "s/step": statistics.median(trained.step_seconds),
    }
    if peaks is not None:
        row |= {"of the script's": peak / peaks.whole, "of its steps'": peak / peaks.in_steps}
    return row, list(trained.losses)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for row in rows:
        shown = [
            "" if row.get(name) is None else f"{row[name]:.5f}" if name.startswith("loss") else f"{row[name]:.2f}"
            for name in COLUMNS
        ]
        in_steps = f", {row['GB in its steps']:.2f} GB in its steps" if "GB in its steps" in row else ""
        lines.append(f"| {row['what']}{in_steps} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", type=lambda text: Path(text).resolve(), help="a peer's training script")
    options.add_argument("--base", type=Path, help="a base's folder; a random one of --size if left out")
    add_size_option(options)
    options.add_argument("--resolution", type=int, default=128, help="pixels per side")
    options.add_argument("--method", choices=["full", "lora"], default="full")
    options.add_argument("--text", action="store_true", help="train the text encoder too")
    options.add_argument("--rungs", nargs="*", help="only these; the losses are compared with the first one's")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all rungs of ours")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    text = "trained" if arguments.text else "frozen"
    what = f"{arguments.method}, text encoder {text}, {arguments.resolution} px, {arguments.steps} steps"
    print(f"{what}; {machine()}\n\n{table(rows)}")
    write_figures(arguments.json, what=what, rows=rows)


if __name__ == "__main__":
    main()
