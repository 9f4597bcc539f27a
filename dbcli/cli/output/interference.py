"""`eval --interference` in words and tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dbcli.cli.invocation import Invocation
from dbcli.cli.output.numbers import number, with_interval
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.workflows.evaluation.request import ScoringOptions


def show_interference(
    call: Invocation, run: str | None, also: Sequence[str], scoring: ScoringOptions, *, is_asked: bool
) -> None:
    """Measures a run, or several combined, and prints it. Raises UsageError for --with without --run."""
    from dbcli.workflows.evaluation.interference import measure_interference
    from dbcli.workflows.generation.request import RunSelection

    if also and not (is_asked and run):
        raise UsageError("--with names runs to combine with --run.", hint="add --interference --run RUN")
    selection = RunSelection([run, *also] if run else [])
    made = measure_interference(call.layout(), selection, scoring, call.screen, offline=call.offline)
    files = {"file": made.file, "report": made.page, "heat_map": made.heat_map}
    call.screen.document(made.report | {what: None if path is None else str(path) for what, path in files.items()})
    _show_subjects(call.screen, made.report)
    for line in made.bleeding:
        call.screen.warn(line)
    _show_drift(call.screen, made.report)
    call.screen.line(f"Numbers: {made.file}")
    call.screen.line(f"Report: {made.page}")


def _show_subjects(screen: Screen, report: Mapping[str, Any]) -> None:
    nearest = report["nearest"]
    if nearest is None:
        screen.note("One subject has nothing to interfere with; only its class is measured.")
        return
    rows = [
        (
            name,
            *with_interval(one["right"], ".0%"),
            ", ".join(f"{other} {count}" for other, count in one["nearest"].items()),
        )
        for name, one in nearest["subjects"].items()
    ]
    rows.append(("all", *with_interval(nearest["overall"], ".0%"), f"by chance {nearest['chance']:.0%}"))
    columns = (
        Column("asked for", least=12),
        Column("nearest to own photos", right=True),
        Column("95 % interval", drop=1),
        Column("nearest to", least=12, wraps=True),
    )
    screen.table(f"{report['drawn_with']} · do the subjects stay apart?", columns, rows)
    for name, one in nearest["subjects"].items():
        if one["verdict"] == "unknown":
            screen.note(f"{name}: the judge recognises only {one['photos_right']:.0%} of its photos, so it cannot say.")


def _show_drift(screen: Screen, report: Mapping[str, Any]) -> None:
    rows = [
        (
            f"a {noun}",
            _number(one["same_seed"]),
            _number(one["other_seeds"]),
            *(f"{_number(one[score]['before'])} → {_number(one[score]['after'])}" for score in ("pres", "div")),
        )
        for noun, one in report["drift"].items()
    ]
    columns = (
        Column("class", least=12, wraps=True),
        Column("same seed", right=True),
        Column("other seeds", drop=1, right=True),
        Column("PRES ↓", right=True),
        Column("DIV ↑", right=True),
    )
    screen.table("The class alone, by the base and by the run; ↓ lower is better, ↑ higher", columns, rows)


def _number(value: float | None) -> str:
    return number(value, missing="–")
