"""A comparison of runs in tables, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.workflows.evaluation.compare import Comparison

# A run's name and its score by metric, as text.
Numbers = tuple[str, Mapping[str, str]]


def show_comparisons(screen: Screen, comparisons: Sequence[Comparison]) -> None:
    """A table a suite: a row a score, a column a run and one for each difference from the first."""
    found = [{"report": str(one.report), "grid": str(one.grid), **one.document} for one in comparisons]
    screen.document({"comparisons": found})
    for one in comparisons:
        _show(screen, one)


def _show(screen: Screen, comparison: Comparison) -> None:
    """Runs as columns, or where a terminal has no room for them all as rows."""
    runs, differences = comparison.document["runs"], comparison.document["differences"]
    scores = [(one["run"], {metric: _value(one, metric) for metric in _metrics()}) for one in runs]
    _show_grid(screen, f"suite {comparison.suite}", scores)
    against = runs[0]["run"]
    for with_interval in (True, False):
        cells = [
            (one["run"], {metric: _difference(one["scores"].get(metric), with_interval) for metric in _metrics()})
            for one in differences
        ]
        if not with_interval or _fits(screen, cells):
            _show_grid(screen, f"less {against}", cells)
            break
    if any(found["clear"] for one in differences for found in one["scores"].values()):
        screen.line("* the 95 % interval does not hold zero", style="dim")
    settings = comparison.document["settings"]
    if settings:
        _show_settings(screen, [one["run"] for one in runs], settings)
    screen.line(f"Grid: {comparison.grid}")
    screen.line(f"Report: {comparison.report}")


def _metrics() -> dict[str, str]:
    """The scores' titles with the direction that is better."""
    from dbcli.workflows.evaluation.evaluate import score_definitions

    found = score_definitions()
    return {name: f"{one['title']} {'↑' if one['better'] == 'higher' else '↓'}" for name, one in found.items()}


def _show_grid(screen: Screen, title: str, runs: Sequence[Numbers]) -> None:
    columns, rows = _by_run(runs)
    if screen.fits(columns, rows):
        screen.table(title, columns, rows)
    else:
        titles = [column.title for column in columns[1:]]
        flipped = [(name, *(row[number] for row in rows)) for number, name in enumerate(titles, start=1)]
        screen.table(title, (Column("run", least=12), *(Column(row[0], right=True) for row in rows)), flipped)


def _by_run(runs: Sequence[Numbers]) -> tuple[list[Column], list[tuple[str, ...]]]:
    """Columns and rows of a grid with a column a run, scores that no run has left out."""
    rows = [
        (title, *(found[metric] for _, found in runs))
        for metric, title in _metrics().items()
        if any(found[metric] for _, found in runs)
    ]
    return [Column("score"), *(Column(name, right=True) for name, _ in runs)], rows


def _fits(screen: Screen, runs: Sequence[Numbers]) -> bool:
    return screen.fits(*_by_run(runs))


def _show_settings(screen: Screen, names: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> None:
    columns = [Column("setting"), *(Column(name, wraps=True, least=8) for name in names)]
    rows = [(key, *values.values()) for key, values in settings.items()]
    title = "what differs"
    if screen.fits(columns, rows):
        screen.table(title, columns, rows)
        return
    by_key = {key: " · ".join(f"{name}: {value}" for name, value in values.items()) for key, values in settings.items()}
    screen.table(title, (Column("setting"), Column("by run", wraps=True, least=24)), list(by_key.items()))


def _value(run: Mapping[str, Any], metric: str) -> str:
    value = (run["scores"]["overall"].get(metric) or {}).get("value")
    return "" if value is None else f"{value:.3f}"


def _difference(found: Mapping[str, Any] | None, with_interval: bool) -> str:
    if found is None:
        return ""
    shown = with_interval and found["low"] is not None
    interval = f" ({found['low']:+.3f} to {found['high']:+.3f})" if shown else ""
    return f"{found['value']:+.3f}{interval}{' *' if found['clear'] else '  '}"
