"""Whole commands beside what they are held to, in turn: a bare script, an import, an older checkout, few runs.

Each row is one pair: A B and B A by turns. Ratios are given by the clock and by processor seconds, with their spread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-m", "dbcli.cli.start"]
STEPS, GUIDANCE, SIZE = 25, 3.0, 128
# Where a command stands still: no download, no probe, one run of one step.
TRAIN = ["--method", "full", "--steps", "1", "--set=prior.enabled=false", "--set=probe.judge=off"]
IMPORTS = "import torch\nfrom diffusers import UNet2DConditionModel\n"
# The same picture's work in the fewest lines that the documentation of diffusers would have one write.
BARE = f"""
import sys, torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from PIL import Image
folder = sys.argv[1]
unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
sampler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
with torch.no_grad():
    ids = tokenizer(["", "a sks dog"], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    states = text(ids.input_ids).last_hidden_state
    side = {SIZE} // 2 ** (len(vae.config.block_out_channels) - 1)
    shape = 1, unet.config.in_channels, side, side
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    sampler.set_timesteps({STEPS})
    for level in sampler.timesteps:
        plain, asked = unet(torch.cat([latents, latents]), level, states).sample.chunk(2)
        latents = sampler.step(plain + {GUIDANCE} * (asked - plain), level, latents).prev_sample
    pixels = vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0)).sample[0]
array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
Image.fromarray(array).save(sys.argv[2])
"""


@dataclass(frozen=True)
class Side:
    """A command: its words, where it runs, what it finds in its environment, what it needs first, how it may end."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None
    code: int = 0

    def took(self) -> tuple[float, float]:
        """Wall and processor seconds of one process."""
        self.before()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **self.environment}
        with tempfile.TemporaryFile() as log:
            began = time.perf_counter()
            process = subprocess.Popen(self.words, cwd=self.folder, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != self.code:
                log.seek(0)
                raise SystemExit(f"{' '.join(self.words)}: exit {process.returncode}\n{log.read().decode()[-2000:]}")
        return wall, usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Case:
    """What is held to what: our side at most `most` times the other, or `most` seconds where there is no other."""

    name: str
    ours: Side
    other: Side | None
    most: float


def run(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run([*PROGRAM, *words], cwd=folder, env={**os.environ, **environment}, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.decode()[-2000:]}")


def trained_project(folder: Path, environment: Mapping[str, str]) -> Path:
    """A project on `tiny` with the bundled dog and one run."""
    folder.mkdir()
    photos = sorted((ROOT / "dbcli/embedded/photos/patch").glob("*.png"))
    run(["init", ".", "--base", "tiny"], folder, environment)
    run(["add-subject", "dog", *map(str, photos), "--class", "dog", "--token", "sks"], folder, environment)
    run(["train", "--subject", "dog", *TRAIN], folder, environment)
    return folder


def with_runs(project: Path, folder: Path, count: int) -> Path:
    """A copy of the project whose one run is there `count` times; only the last has its weights."""
    (run_folder,) = (project / "runs").glob("0*")
    record = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    shutil.copytree(project, folder, ignore=lambda path, names: ["runs"] if Path(path) == project else [])
    for number in range(1, count + 1):
        name = f"{number:04d}-dog"
        (folder / "runs" / name / "weights").mkdir(parents=True)
        text = json.dumps({**record, "name": name}, indent=2)
        (folder / "runs" / name / "run.json").write_text(text, encoding="utf-8")
    shutil.copytree(run_folder / "weights", folder / "runs" / name / "weights", dirs_exist_ok=True)
    return folder


def cases(root: Path, before: Path | None, few: int, many: int) -> list[Case]:
    """All that is compared, on projects made for it."""
    caches = {"XDG_CACHE_HOME": str(root / "cache")}
    mine = {"PYTHONPATH": str(ROOT), **caches}
    project = trained_project(root / "project", mine)
    (root / "bare.py").write_text(BARE, encoding="utf-8")
    (root / "imports.py").write_text(IMPORTS, encoding="utf-8")
    (weights,) = project.glob("runs/*/weights")

    def ours(words: Sequence[str], folder: Path = project, code: int = 0) -> Side:
        return Side([*PROGRAM, *words], folder, mine, code=code)

    drawn = ["generate", "-n", "1", "--steps", str(STEPS), "--guidance", str(GUIDANCE), "a sks dog"]
    check, dry = ["tokens", "check", "zxq"], ["train", "--dry-run", "--subject", "dog"]
    bare = Side([sys.executable, str(root / "bare.py"), str(weights), str(root / "bare.png")], root)
    imports = Side([sys.executable, str(root / "imports.py")], root)
    new = Side([*PROGRAM, *dry], project, mine, before=lambda: shutil.rmtree(root / "cache", ignore_errors=True))
    found = [
        Case("generate -n 1, beside a bare script", ours(drawn), bare, 0.7),
        Case("a new dry run, beside importing torch and the UNet", new, imports, 1.5),
        Case("a known dry run, in seconds", ours(dry), None, 1.0),
    ]
    if before is not None:
        theirs = {"PYTHONPATH": str(before), **caches}
        told = subprocess.run([*PROGRAM, "--version"], cwd=project, env={**os.environ, **theirs}, capture_output=True)
        if not told.stdout:
            raise SystemExit(f"{before} has no program that is started as {' '.join(PROGRAM)}: take a newer checkout.")
        found.append(
            Case("tokens check, beside an older checkout", ours(check), Side(ours(check).words, project, theirs), 0.5)
        )
    small, large = with_runs(project, root / "few", few), with_runs(project, root / "many", many)
    for name, words, code in (
        ("dreambooth alone", [], 0),
        ("runs list", ["runs", "list"], 0),
        ("a prompt that names no subject", ["generate", "a {dgo} in space"], 3),
        ("a prompt that is too long", ["generate", "very " * 90 + "a {dog}"], 3),
    ):
        found.append(Case(f"{name}, {many} runs beside {few}", ours(words, large, code), ours(words, small, code), 2.0))
    return found


def measured(case: Case, pairs: int) -> list[dict[str, float]]:
    """A row a pair, after one unmeasured round in which files are read and caches filled."""
    sides = {"ours": case.ours} | ({} if case.other is None else {"other": case.other})
    for side in sides.values():
        side.took()
    rows = []
    for number in range(pairs):
        took = {name: sides[name].took() for name in sorted(sides, reverse=bool(number % 2))}
        row = {f"{name} s": wall for name, (wall, _) in took.items()}
        row |= {f"{name} CPU s": used for name, (_, used) in took.items()}
        if case.other is not None:
            row["ratio"], row["CPU ratio"] = (took["ours"][kind] / took["other"][kind] for kind in (0, 1))
        rows.append(row)
        print(json.dumps({"case": case.name, **row}), file=sys.stderr, flush=True)
    return rows


def line(case: Case, rows: Sequence[Mapping[str, float]]) -> str:
    """A case's medians, and in brackets the smallest and the largest."""

    def spread(key: str) -> str:
        values = [row[key] for row in rows if key in row]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""

    keys = ("ours s", "other s", "ratio", "ours CPU s", "other CPU s", "CPU ratio")
    return f"| {case.name} | " + " | ".join(spread(key) for key in keys) + f" | {case.most} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older checkout, for tokens check")
    options.add_argument("--runs", type=int, nargs=2, default=(10, 1000), metavar=("FEW", "MANY"))
    options.add_argument("--only", default="", metavar="WORD", help="cases with this word in their name")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = cases(Path(folder).resolve(), arguments.before and arguments.before.resolve(), *arguments.runs)
        chosen = [one for one in chosen if arguments.only in one.name]
        figures = {case.name: measured(case, arguments.pairs) for case in chosen}
    print(f"{arguments.pairs} pairs; {machine()}\n")
    print("| what | ours, s | other, s | ratio | ours, CPU s | other, CPU s | CPU ratio | at most |")
    print("|---|" + "---|" * 7)
    print("\n".join(line(case, figures[case.name]) for case in chosen))
    write_figures(arguments.json, figures=figures)


if __name__ == "__main__":
    main()
