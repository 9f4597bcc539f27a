"""Scores of a run in tables, and as JSON; the demo's are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.cli.output.numbers import number, with_interval
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.workflows.demo import Demonstration
    from dbcli.workflows.evaluation.evaluate import Evaluation

COLUMNS = (
    Column("score"),
    Column("judge", drop=3),
    Column("value", right=True),
    Column("95 % interval", drop=1),
    Column("photos", drop=2, right=True),
    Column("better", drop=4),
)


def show_evaluations(screen: Screen, evaluations: Sequence[Evaluation]) -> None:
    """A table of scores per suite, the photos' own values beside them."""
    documents = [
        {
            "scores_file": str(one.scores_file),
            "report": str(one.report),
            "grid": None if one.grid is None else str(one.grid),
            **one.scores,
        }
        for one in evaluations
    ]
    screen.document({"evaluations": documents})
    for one in evaluations:
        _show_scores(screen, one)


def show_demo(screen: Screen, shown: Demonstration) -> None:
    """What the demo made, and what to type next."""
    screen.document(
        {"project": str(shown.project), "run": shown.run, "grid": str(shown.grid), "seconds": shown.seconds}
    )
    if shown.evaluation is not None:
        _show_scores(screen, shown.evaluation)
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in shown.seconds.items())
    screen.line(f"Done: {seconds}. Look at {shown.grid}", style="bold")
    screen.next(f'cd {shown.project}; dreambooth generate "a sks dog on a wooden table" --grid')


def _show_scores(screen: Screen, evaluation: Evaluation) -> None:
    from dbcli.workflows.evaluation.evaluate import score_definitions

    scores, rows = evaluation.scores, []
    judges = scores["protocol"]["judges"]
    for metric, definition in score_definitions().items():
        found = scores["overall"].get(metric)
        if found is not None:
            judge = judges.get(definition["judge"], {}).get("judge", "")
            real = number(scores["real"].get(metric))
            rows.append((definition["title"], judge, *with_interval(found), real, definition["better"]))
    screen.table(f"{evaluation.run} · suite {evaluation.suite}", COLUMNS, rows)
    for name in scores["copying"]:
        screen.warn(f"{name}: DINO is above the photos' own value; the images copy the photos.")
    screen.line(f"Scores: {evaluation.scores_file}")
    screen.line(f"Report: {evaluation.report}")
    if evaluation.grid is not None:
        screen.line(f"Grid: {evaluation.grid}")
