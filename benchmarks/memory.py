"""Memory at its peak, foretold and measured, of whole runs: every recipe that this machine has room for."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import write_base, write_pictures  # noqa: E402

FULL, LORA, RECOMPUTED = ["--method", "full"], ["--method", "lora"], ["--set=train.gradient_checkpointing=true"]
RECIPES = {
    "full": FULL,
    "full, activations recomputed": [*FULL, *RECOMPUTED],
    "full, fused backward": [*FULL, *RECOMPUTED, "--set=train.fused_backward=true", "--set=train.gradient_clip=0"],
    "LoRA": LORA,
    "LoRA, activations recomputed": [*LORA, *RECOMPUTED],
    "LoRA, 8-bit base": [*LORA, *RECOMPUTED, "--set=lora.base=int8"],
    "LoRA, 4-bit base": [*LORA, *RECOMPUTED, "--set=lora.base=nf4"],
}
PROGRAM = [sys.executable, "-m", "dbcli.cli.app"]


def said(folder: Path, *words: str) -> dict:
    """One command's JSON document."""
    done = subprocess.run([*PROGRAM, *words, "--json"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, object]]:
    """One row a recipe: what the dry run says, and what two steps of the same recipe then take."""
    base = arguments.base or str(write_base(root / "base"))
    photos = write_pictures(root / "photos", 4, size_px=512, seed=1)
    project = root / "project"
    said(root, "init", str(project), "--base", base)
    said(project, "add-subject", "dog", "--class", "dog", str(photos), "--token", "sks")
    job = ["train", "--subject", "dog", "--steps", "2", "--set=prior.images=4", "--set=prior.steps=1"]
    job += [f"--set={one}" for one in arguments.set]
    rows = []
    for name, words in RECIPES.items():
        foretold = said(project, *job, *words, "--dry-run")["outlook"]["recipes"][0]
        if not foretold["fits"]:
            rows.append({"recipe": name, "foretold GB": foretold["peak_memory_bytes"] / 1e9})
            continue
        record = said(project, *job, *words)
        peak = record["peak_memory_bytes"]
        row = {"recipe": name, "foretold GB": foretold["peak_memory_bytes"] / 1e9, "measured GB": peak / 1e9}
        rows.append(row | {"foretold/measured": foretold["peak_memory_bytes"] / peak, "device": record["device"]})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", help="a base that dreambooth init takes; a random one of 18 M values if left out")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of dreambooth train")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    print("| recipe | foretold GB | measured GB | foretold/measured |\n|---|---|---|---|")
    for row in rows:
        figures = [row.get(key) for key in ("foretold GB", "measured GB", "foretold/measured")]
        shown = ["no room" if figure is None else f"{figure:.2f}" for figure in figures]
        print(f"| {row['recipe']} | " + " | ".join(shown) + " |")
    if arguments.json:
        document = {"machine": platform.machine(), "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
