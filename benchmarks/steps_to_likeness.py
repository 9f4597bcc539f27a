"""From a sweep whose runs were probed: how soon each recipe's images are as like the photos as the reference's become.

    python benchmarks/steps_to_likeness.py PROJECT SWEEP --share 0.9

A run has come to it at its first probe whose likeness (`fidelity`, the mean cosine with the photos by the judge of
likeness) is at least `--share` of what the last probe of the row says that the sweep compares with (`against`), for
the same subject and the same values on all other axes. Seconds are those of the steps up to there, without the probes,
class images and start-up that every run has. Probes are few and small, so a single run says little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import machine, write_figures  # noqa: E402

from dbcli.project.files.layout import Layout  # noqa: E402
from dbcli.project.runs.run_store import read_events  # noqa: E402

SHARE = 0.9


@dataclass(frozen=True)
class Course:
    """The likeness of a run at each of its probes, and the seconds that its steps had taken by then."""

    likeness: Mapping[int, float]
    seconds: Mapping[int, float]

    @property
    def last(self) -> float:
        """What the last probe says."""
        return self.likeness[max(self.likeness)]

    def reaches(self, wanted: float) -> int | None:
        """The first probed step of at least this likeness, or None."""
        return next((step for step, found in sorted(self.likeness.items()) if found >= wanted), None)


@dataclass(frozen=True)
class Row:
    """A recipe over all subjects and seeds: medians over runs, of which one that never reaches it counts as slowest."""

    recipe: str
    runs: int
    reached: int
    steps: float | None
    seconds: float | None


def course(events: Iterable[Mapping[str, Any]]) -> Course:
    """The course of one run from its events. A step that was done twice, before a stop and after, counts as done last.

    Raises SystemExit for a run without probes.
    """
    likeness: dict[int, float] = {}
    took: dict[int, float] = {}
    for event in events:
        if event.get("event") == "probe":
            likeness[event["step"]] = event["fidelity"]
        elif "loss" in event and "step" in event:
            took[event["step"]] = event["seconds"]
    if not likeness:
        raise SystemExit("A run of the sweep has no probes: set probe.judge and probe.every in the sweep's settings.")
    return Course(likeness, {step: sum(took[one] for one in took if one <= step) for step in likeness})


def rows(cells: Sequence[tuple[str, tuple[str, ...], Course]], against: str, share: float) -> list[Row]:
    """A row a recipe, the reference among them. Each cell is its recipe, where it stands on other axes, its course.

    Cells whose reference is not there yet are left out. Raises SystemExit where there is none at all.
    """
    wanted = {place: share * one.last for recipe, place, one in cells if recipe == against}
    if not wanted:
        raise SystemExit(f"No cell of '{against}' is finished, so there is nothing to hold the others to.")
    found = []
    for recipe in dict.fromkeys(recipe for recipe, _, _ in cells):
        mine = [(one, one.reaches(wanted[place])) for name, place, one in cells if name == recipe and place in wanted]
        if mine:
            found.append(_row(recipe, mine))
    return found


def _row(recipe: str, mine: Sequence[tuple[Course, int | None]]) -> Row:
    endless = float("inf")
    steps = statistics.median_low([endless if step is None else step for _, step in mine])
    seconds = statistics.median_low([endless if step is None else one.seconds[step] for one, step in mine])
    reached = sum(step is not None for _, step in mine)
    return Row(recipe, len(mine), reached, *(None if one == endless else one for one in (steps, seconds)))


def markdown(found: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = ["| recipe | reached | steps, median | seconds of steps, median |", "|:--|--:|--:|--:|"]
    for row in found:
        steps, seconds = ("not reached" if one is None else f"{one:.0f}" for one in (row.steps, row.seconds))
        lines.append(f"| {row.recipe} | {row.reached} of {row.runs} | {steps} | {seconds} |")
    return "\n".join(lines) + "\n"


def cells_of(project: Path, name: str) -> tuple[list[tuple[str, tuple[str, ...], Course]], str]:
    """The finished cells of a sweep, and the label of the row that it compares with."""
    layout = Layout(project)
    scores = json.loads((layout.sweep_dir(name) / "scores.json").read_text(encoding="utf-8"))
    if "against" not in scores:
        raise SystemExit(f"The sweep {name} compares its rows with none: its file has no 'against'.")
    (axis,) = (one for one in scores["cells"][0]["values"] if one not in scores["average_over"])
    cells = []
    for cell in scores["cells"]:
        if cell["state"] == "finished":
            place = tuple(value for one, value in cell["values"].items() if one != axis)
            cells.append((cell["values"][axis], place, course(read_events(layout, cell["runs"][-1]))))
    return cells, scores["against"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("project", type=Path)
    parser.add_argument("sweep", help="the name of a sweep of this project with scores")
    parser.add_argument("--share", type=float, default=SHARE, help="of the reference's last likeness")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found = rows(*cells_of(options.project, options.sweep), options.share)
    print(f"{machine()}\n\n{markdown(found)}", end="")
    write_figures(options.json, rows=[asdict(row) for row in found])


if __name__ == "__main__":
    main()
