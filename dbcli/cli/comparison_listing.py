"""A comparison of runs in tables, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbcli.cli.screen import Screen

if TYPE_CHECKING:
    from dbcli.workflows.compare import Comparison


def show_comparisons(screen: Screen, comparisons: Sequence[Comparison]) -> None:
    """A table a suite: a row a score, a column a run and one for each difference from the first."""
    found = [{"report": str(one.report), "grid": str(one.grid), **one.document} for one in comparisons]
    screen.document({"comparisons": found})
    for one in comparisons:
        _show(screen, one)


def _show(screen: Screen, comparison: Comparison) -> None:
    from dbcli.workflows.evaluate import score_definitions

    runs, differences = comparison.document["runs"], comparison.document["differences"]
    headers = ["score", *(one["run"] for one in runs), *(f"{one['run']} less {one['against']}" for one in differences)]
    rows = []
    for metric, definition in score_definitions().items():
        values = [(one["scores"]["overall"].get(metric) or {}).get("value") for one in runs]
        if any(value is not None for value in values):
            cells = ["" if value is None else f"{value:.3f}" for value in values]
            arrow = "↑" if definition["better"] == "higher" else "↓"
            cells += [_difference(one["scores"].get(metric)) for one in differences]
            rows.append((f"{definition['title']} {arrow}", *cells))
    screen.table(f"suite {comparison.suite}", headers, rows)
    if any(found["clear"] for one in differences for found in one["scores"].values()):
        screen.line("* the 95 % interval does not hold zero", style="dim")
    settings = comparison.document["settings"]
    if settings:
        names = [one["run"] for one in runs]
        screen.table("what differs", ("setting", *names), [(key, *values.values()) for key, values in settings.items()])
    screen.line(f"Grid: {comparison.grid}")
    screen.line(f"Report: {comparison.report}")


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = "" if found["low"] is None else f" ({found['low']:+.3f} to {found['high']:+.3f})"
    return f"{found['value']:+.3f}{interval}{' *' if found['clear'] else ''}"
