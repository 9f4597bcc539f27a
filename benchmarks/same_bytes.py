"""Whether two checkouts make the same weights and images, bit by bit: short runs of every method with fixed seeds.

    python benchmarks/same_bytes.py path/to/checkout/before [path/to/checkout/after]

Exit code 1 where any file differs or is only in one of them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PROGRAM = "from dbcli.cli.start import main; main()"
SHORT = ("--steps", "24", "--seed", "3", "--set", "train.checkpoint_every=0", "--yes")
WITH_PRIOR = ("--set", "prior.images=8")
PHOTOS = "{checkout}/dbcli/embedded/photos/patch"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("init", ".", "--base", "tiny", "--profile", "tiny", "--yes"),
    ("add-subject", "dog", "--class", "dog", PHOTOS, "--token", "sks", "--yes"),
    ("train", "--subject", "dog", "--method", "full", *SHORT, *WITH_PRIOR),
    ("generate", "a sks dog in the snow", "-n", "2", "--steps", "12", "--seed", "7", "--run", "1"),
    ("generate", "a sks dog", "-n", "1", "--sampler", "dpm++", "--steps", "8", "--seed", "7", "--run", "1"),
    ("train", "--subject", "dog", "--method", "lora", *SHORT, *WITH_PRIOR),
    ("generate", "a sks dog in the snow", "-n", "2", "--steps", "12", "--seed", "7", "--run", "2"),
    ("add-subject", "ball", "--class", "dog", PHOTOS, "--token", "hta", "--yes"),
    ("train", "--subject", "ball", "--method", "textual-inversion", *SHORT),
    ("generate", "a hta dog in the snow", "-n", "2", "--steps", "12", "--seed", "7", "--run", "3"),
)
KEPT = ("runs/*/weights/**/*.safetensors", "runs/*/images/*.png", "reg/*/*.png")


def hashes(checkout: Path, project: Path) -> dict[str, str]:
    """Run every command with a checkout's code; return the sha256 of all weights and images by their paths."""
    # More threads add in another order, and the last bits of a sum differ.
    settings = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    project.mkdir(parents=True)
    for command in COMMANDS:
        words = [word.format(checkout=checkout) for word in command]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=project,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"{checkout}: dreambooth {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    files = sorted(file for pattern in KEPT for file in project.glob(pattern))
    return {str(file.relative_to(project)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def compared(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Each file of either with its verdict, both hashes shortened, and its path."""
    rows = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, "missing"), after.get(path, "missing")
        rows.append(("same" if old == new else "differs", old[:16], new[:16], path))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, nargs="?", default=HERE, help="another; without it the one of this file")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (
            hashes(checkout.resolve(), Path(folder) / name / "project")
            for name, checkout in (("before", given.before), ("after", given.after))
        )
    rows = compared(before, after)
    for verdict, old, new, path in rows:
        print(f"{verdict:8} {old:17} {new:17} {path}")
    same = sum(row[0] == "same" for row in rows)
    print(f"{same} of {len(rows)} files are the same")
    return 0 if same == len(rows) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
