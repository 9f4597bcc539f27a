"""Memory at its peak, foretold and measured, of whole runs: every rung of the ladder that this machine has room for."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402
from models import add_base_options, chosen_base, write_pictures  # noqa: E402
from program import USAGE, CommandFailed, Project, as_options, said  # noqa: E402

JOB = ["train", "--subject", "dog", "--steps", "2"]
QUICK = {"prior.images": 4, "prior.steps": 1}


def recipes() -> dict[str, list[str]]:
    """The options of each rung that this installation can stand on, the largest first."""
    from dbcli.workflows.memory.ladder import rungs

    return {rung.name: ["--method", rung.method, *as_options(rung.settings)] for rung in rungs()}


def measured(project: Project, name: str, words: list[str]) -> dict[str, object]:
    """One row: what the dry run says, and what two steps of the same recipe then take, where there is room for them."""
    try:
        foretold = said(project.folder, *JOB, *words, "--dry-run")["outlook"]["recipes"][0]
    except CommandFailed as failure:
        if failure.code != USAGE:
            raise
        return {"recipe": name, "ruled out": str(failure)}
    row = {"recipe": name, "foretold GB": foretold["peak_memory_bytes"] / 1e9}
    if not foretold["fits"]:
        return row
    record = said(project.folder, *JOB, *words)
    project.emptied()
    ratio = foretold["peak_memory_bytes"] / record["peak_memory_bytes"]
    row |= {"measured GB": record["peak_memory_bytes"] / 1e9, "foretold/measured": ratio}
    return row | {"device": record["device"], "fell back": [one["after"] for one in record["fallbacks"]]}


def measure(arguments: argparse.Namespace, root: Path) -> list[dict[str, object]]:
    """One row a rung; raises RuntimeError where the settings rule all of them out."""
    photos = write_pictures(root / "photos", 4, size_px=512, seed=1)
    project = Project(root / "project", chosen_base(arguments, root / "base"), sorted(photos.iterdir()))
    sets = [*as_options(QUICK), *(f"--set={one}" for one in arguments.set)]
    rows = []
    for name, words in recipes().items():
        rows.append(measured(project, name, [*sets, *words]))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if all("ruled out" in row for row in rows):
        raise RuntimeError(str(rows[-1]["ruled out"]))
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown; a rung that the settings rule out has no figures."""
    lines = ["| rung | foretold GB | measured GB | foretold/measured |", "|---|---|---|---|"]
    for row in rows:
        without = "ruled out" if "ruled out" in row else "no room"
        figures = [row.get(key) for key in ("foretold GB", "measured GB", "foretold/measured")]
        shown = [without if figure is None else f"{figure:.2f}" for figure in figures]
        fell_back = "".join(f", fell back to {name}" for name in row.get("fell back", ()))  # type: ignore[attr-defined]
        lines.append(f"| {row['recipe']}{fell_back} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    add_base_options(options)
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of dreambooth train")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder).resolve())
    print(f"{machine()}\n\n{table(rows)}")
    write_figures(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
