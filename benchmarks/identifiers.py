"""Do two subjects in one model stay apart? The sweep of identifiers, and the interference of every run it ends with.

    python benchmarks/identifiers.py --project study --sweep tiny-identifiers --json identifiers.json

The project holds the subjects that the sweep names. Every cell of the sweep is trained (finished ones are not trained
again), its last run is measured by `eval --interference`, and the share of pictures that are nearest to the photos of
the subject they were asked for is pooled by arrangement. The interval is a bootstrap over cells, that is over pairs
and seeds together. `--add FILE` pools the figures of other projects with these.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESAMPLES = 10_000


def program(project: Path, *words: str | Path) -> dict[str, Any]:
    """The document that one command of the program prints."""
    command = [sys.executable, "-m", "dbcli.cli.app", "-C", str(project), "--json", "--offline"]
    done = subprocess.run([*command, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def measured(project: Path, sweep: str, images: int) -> list[dict[str, Any]]:
    """A row a finished cell: its values, and what the interference of its last run says."""
    program(project, "sweep", sweep)
    name = program(project, "sweep", sweep, "--dry-run")["sweep"]
    scores = json.loads((project / "sweeps" / name / "scores.json").read_text(encoding="utf-8"))
    rows = []
    for cell in scores["cells"]:
        run = cell["runs"][-1]
        file = project / "runs" / run / "eval" / "interference" / "interference.json"
        if not file.exists():
            program(project, "eval", "--run", run, "--interference", "-n", str(images))
        report = json.loads(file.read_text(encoding="utf-8"))
        nearest = report["nearest"]
        shares = {subject: one["right"]["value"] for subject, one in nearest["subjects"].items()}
        rows.append({**cell["values"], "right": nearest["overall"]["value"], "subjects": shares})
    return rows


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over cells."""
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row an arrangement; the subject that was taught first, the one taught last, and both."""
    lines = [
        "| arrangement | cells | nearest to the right subject | 95 % | the first | the second |",
        "|---|---|---|---|---|---|",
    ]
    for arrangement in dict.fromkeys(row["arrangement"] for row in rows):
        own = [row for row in rows if row["arrangement"] == arrangement]
        values = [row["right"] for row in own]
        low, high = interval(values)
        first, second = (
            sum(row["subjects"][row["pair"].split(" and ")[place]] for row in own) / len(own) for place in (0, 1)
        )
        mean = sum(values) / len(values)
        lines.append(f"| {arrangement} | {len(own)} | {mean:.0%} | {low:.0%}-{high:.0%} | {first:.0%} | {second:.0%} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--project", type=Path, help="train and measure there; left out, only --add is pooled")
    options.add_argument("--sweep", default="tiny-identifiers", help="a sweep that ships, or a YAML file")
    options.add_argument("--pictures", type=int, default=4, help="pictures a prompt")
    options.add_argument("--add", type=Path, nargs="*", default=[], help="figures written by --json before")
    options.add_argument("--json", type=Path, help="write the figures there")
    arguments = options.parse_args()
    rows = [row for file in arguments.add for row in json.loads(file.read_text(encoding="utf-8"))]
    if arguments.project is not None:
        rows += measured(arguments.project, arguments.sweep, arguments.pictures)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
