"""A base of full size with random weights: the memory that it takes to load, to train a LoRA for a step, and to draw.

Written twice in half precision, as a diffusers folder and as one file in the original layout. On the CPU, where a
process's memory is all there is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import RANDOM, random_model, write_pictures  # noqa: E402
from program import PROGRAM, Project, as_options, said, timed  # noqa: E402

LOAD = "import sys; from dbcli.diffusion.bases.base import load_base; load_base(sys.argv[1], offline=True)"
JOB = ["train", "--subject", "dog", "--steps", "1"]
DRAWN = ["generate", "a dog", "--run", "base", "-n", "1", "--steps", "2", "--width", "128", "--height", "128"]
# One step on small images: what is measured is the weights.
QUICK = {"images.resolution": 64, "prior.images": 2, "prior.steps": 1, "probe.judge": "off", "train.device": "cpu"}


def write(folder: Path, size: str) -> None:
    """Writes `folder`/folder and `folder`/file.safetensors."""
    import torch

    from dbcli.diffusion.formats.checkpoint import write_checkpoint
    from dbcli.diffusion.formats.diffusers_folder import write_base

    model = random_model(size)
    write_base(folder / "folder", model, dtype=torch.float16)
    write_checkpoint(folder / "file.safetensors", model, dtype=torch.float16)


def rows(root: Path, sets: list[str], job: list[str]) -> Iterator[dict[str, object]]:
    """One row a measurement: what was done, its peak in GB, and what it is held against."""
    sources = {"folder": root / "folder", "single file": root / "file.safetensors"}
    sizes = {name: sum(file.stat().st_size for file in _weights(source)) / 1e9 for name, source in sources.items()}
    for name, source in sources.items():
        peak = timed([sys.executable, "-c", LOAD, str(source)], root).peak_bytes / 1e9
        yield {"what": f"load the {name}", "GB": peak, "beside": sizes[name], "of": "the files"}
    photos = sorted(write_pictures(root / "photos", 4, size_px=512, seed=1).iterdir())
    for name, source in sources.items():
        project = Project(root / f"project of {name}", str(source), photos)
        words = [*JOB, *job, *as_options(QUICK), *(f"--set={one}" for one in sets)]
        foretold = said(project.folder, *words, "--dry-run")["outlook"]["recipes"][0]["peak_memory_bytes"] / 1e9
        record = said(project.folder, *words)
        peak = record["peak_memory_bytes"] / 1e9
        yield {"what": f"a LoRA's step, {name}", "GB": peak, "beside": foretold, "of": "the estimate"}
        project.emptied()
        peak = timed([*PROGRAM, *DRAWN], project.folder).peak_bytes / 1e9
        yield {"what": f"draw 128 px, {name}", "GB": peak, "beside": sizes[name], "of": "the files"}


def _weights(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(source.rglob("*.safetensors"))


def table(found: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = ["| | peak GB | beside | ratio |", "|---|---|---|---|"]
    for row in found:
        peak, other = float(str(row["GB"])), float(str(row["beside"]))
        lines.append(f"| {row['what']} | {peak:.2f} | {row['of']}: {other:.2f} | {peak / other:.3f} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", choices=RANDOM[1:], default="sdxl", help="of the random base")
    options.add_argument("--work", type=Path, help="where the base is, or is written to stay; else it is removed again")
    options.add_argument("--write", type=Path, metavar="FOLDER", help="only write the base")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of dreambooth train")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.size)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.work or Path(temporary)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "file.safetensors").is_file():
            # In a process of its own: this one has to stay small.
            timed([sys.executable, __file__, "--write", str(root), "--size", arguments.size], root)
        found = []
        for row in rows(root, arguments.set, ["--method", "lora"]):
            found.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    print(f"{machine()}\n\n{table(found)}")
    write_figures(arguments.json, rows=found)


if __name__ == "__main__":
    main()
