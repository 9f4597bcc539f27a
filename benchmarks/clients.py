"""Puts every kind of export through the programs it is for, and prints the greatest difference of a weight.

    python benchmarks/clients.py                                    the diffusers that is installed here
    python benchmarks/clients.py --diffusers OLD/bin/python         another one, in an environment of its own
    python benchmarks/clients.py --size narrow --comfyui ComfyUI PYTHON --sd-scripts sd-scripts PYTHON
                                 --webui stable-diffusion-webui PYTHON --invokeai InvokeAI PYTHON --lycoris PYTHON
    python benchmarks/clients.py --size full --sd-cpp PYTHON
    python benchmarks/clients.py --size narrow --runs --comfyui ComfyUI PYTHON --lycoris PYTHON
                                                                    trained runs of every kind instead of random layers

Programs that are on no package index are given as folders of their code; their commits are printed. Each runs in a
process of its own by its own loaders, on random models in the layout of Stable Diffusion v1. The yardstick is this
program's own reading of the file, or with --runs the run's own weights: 0 up to 1e-5 is right, for fp16 files too.
stable-diffusion.cpp shows no weights; its figures are levels of 255 of an image, and it needs models of full size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from client_files import (  # noqa: E402
    MERGED,
    RECIPES,
    WIDTHS,
    Case,
    make_model,
    write_adapters,
    write_bases,
    write_embeddings,
    write_for_images,
)
from client_runs import RUNS, write_runs  # noqa: E402

READERS = Path(__file__).resolve().parent / "client_readers"
# What programs tell a model by is wider than the smallest one.
SIZES_OF = {
    "comfyui_reader": ("narrow",),
    "sd_scripts_reader": ("narrow",),
    "diffusers_reader": ("small", "narrow"),
    "lycoris_reader": ("small", "narrow"),
    "webui_reader": ("small", "narrow"),
    "invokeai_reader": ("small", "narrow"),
    "sd_cpp_reader": ("full",),
}


@dataclass(frozen=True)
class Client:
    """A program: the script that asks it, the Python that has what it needs, and the folder of its code, if any."""

    reader: str
    python: str
    folder: Path | None = None

    @property
    def commit(self) -> str:
        if self.folder is None:
            return ""
        asked = ["git", "-C", str(self.folder), "rev-parse", "--short=10", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()  # none of an unpacked archive


def main(words: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(words)
    with tempfile.TemporaryDirectory(dir=asked.work) as work:
        base, cases = make_cases(Path(work), asked.size, asked.recipes, asked.runs)
        results = kept(asked.results)
        for client in _clients(asked):
            if asked.size not in SIZES_OF.get(client.reader, tuple(WIDTHS)):
                print(f"{client.reader}: not run on models of size {asked.size}", file=sys.stderr)
                continue
            results |= ask(client, Path(work), base, cases, asked.size)
            if asked.results is not None:
                asked.results.write_text(
                    json.dumps([[list(key), one] for key, one in results.items()]), encoding="utf-8"
                )
    print(table(cases, results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=WIDTHS, default="small")
    parser.add_argument("--work", type=Path, help="where the files are written; full size takes 15 GB")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=(), help="only these LoRAs")
    parser.add_argument(
        "--runs", nargs="*", choices=RUNS, metavar="KIND", help=f"only runs of these kinds, or all: {', '.join(RUNS)}"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep what is found, for the table of later calls")
    parser.add_argument(
        "--diffusers",
        action="append",
        default=[],
        metavar="PYTHON",
        help="by default the one installed here, where no program is named",
    )
    parser.add_argument("--lycoris", metavar="PYTHON")
    parser.add_argument("--sd-cpp", metavar="PYTHON")
    for program in ("comfyui", "sd-scripts", "webui", "invokeai"):
        parser.add_argument(f"--{program}", nargs=2, metavar=("FOLDER", "PYTHON"))
    return parser


def _clients(asked: argparse.Namespace) -> list[Client]:
    clients = [Client("diffusers_reader", python) for python in asked.diffusers]
    for reader, python in (("lycoris_reader", asked.lycoris), ("sd_cpp_reader", asked.sd_cpp)):
        clients += [Client(reader, python)] if python else []
    for program in ("comfyui", "sd_scripts", "webui", "invokeai"):
        given = getattr(asked, program)
        clients += [Client(f"{program}_reader", given[1], Path(given[0]).resolve())] if given else []
    return clients or [Client("diffusers_reader", sys.executable)]


def kept(path: Path | None) -> dict[tuple[str, str, str], Any]:
    """What earlier calls found: programs can be asked one after another."""
    if path is None or not path.exists():
        return {}
    return {(client, name, precision): one for (client, name, precision), one in json.loads(path.read_text())}


def make_cases(
    work: Path, size: str, recipes: Sequence[str] = (), runs: Sequence[str] | None = None
) -> tuple[Case, list[Case]]:
    """Writes the models and one export of each kind, of the named LoRAs or all; returns the fp32 base and all cases.

    With `runs` the exports are of trained runs of these kinds, or of all.
    """
    model = make_model(size)
    if runs is not None:
        base = write_bases(work, model)[0]
        return base, write_runs(work, model, base, runs or tuple(RUNS))
    if size == "full":
        cases = write_for_images(work, model, recipes or MERGED)
        return cases[0], cases
    bases = write_bases(work, model)
    adapters = write_adapters(work, model, bases[0], recipes or tuple(RECIPES))
    return bases[0], [*bases, *adapters, *write_embeddings(work, model["text_encoder"].config.hidden_size)]


def ask(client: Client, work: Path, base: Case, cases: Sequence[Case], size: str) -> dict[tuple[str, str, str], Any]:
    """What a client makes of every case, by (client with its version, case, precision)."""
    job = work / "job.json"
    told = [{**asdict(case), **case.extra, "name": f"{case.name}|{case.precision}"} for case in cases]
    table = {
        "base_checkpoint": base.file,
        "base_folder": str(Path(base.file).with_suffix("")),
        "widths": list(WIDTHS[size]),
        "threads": os.cpu_count() or 1,
        "client": str(client.folder or ""),
        "cases": told,
    }
    job.write_text(json.dumps(table), encoding="utf-8")
    # Nothing of this environment reaches the client's, and it asks no network.
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS") if name in os.environ}
    environment = keep | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    script = str(READERS / f"{client.reader}.py")
    done = subprocess.run([client.python, script, str(job)], capture_output=True, text=True, env=environment)
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        print(done.stderr[-3000:], file=sys.stderr)
        raise SystemExit(f"{client.reader} ended with {done.returncode}")
    found = {}
    for result in map(json.loads, lines):
        name, precision = result["case"].split("|")
        version = f"{result['version']}, {client.commit}" if client.commit else result["version"]
        found[version, name, precision] = result
    return found


def figure(result: dict[str, Any] | None, change: float) -> str:
    """One cell: the greatest difference, beside what the file changes, and what the client does not have."""
    if result is None:
        return ""
    if "refused" in result:
        return "refused"
    if "levels" in result:
        return f"{result['levels']} of 255 (change {result['change']})"
    layers = len(result["missing"]) + len(result["differing"])
    if layers == 0:
        return "0" if result["difference"] == 0 else f"{result['difference']:.0e}"
    cell = f"**{result['difference']:.2g}** of {change:.2g}, {layers} tensors"
    seen_as = [name for name, difference in result.get("readings", {}).items() if difference <= 1e-5]
    return f"{cell}: {seen_as[0]}" if seen_as else cell


def table(cases: Sequence[Case], results: dict[tuple[str, str, str], Any]) -> str:
    """A table in Markdown: a row for each kind of export and precision, a column for each client."""
    clients = list(dict.fromkeys(client for client, _, _ in results))
    rows = ["| export | precision | " + " | ".join(clients) + " |", "|---" * (len(clients) + 2) + "|"]
    for case in cases:
        cells = [figure(results.get((client, case.name, case.precision)), case.change) for client in clients]
        rows.append(f"| {case.name} | {case.precision} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
