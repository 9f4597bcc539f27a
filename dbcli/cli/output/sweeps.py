"""What `sweep` and `bench` print: the plan of a dry run, the table at the end, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.workflows.sweeps.plan import SweepPlan
    from dbcli.workflows.sweeps.remaining import Left
    from dbcli.workflows.sweeps.run import SweepResult

MAIN_SCORES = ("DINO", "CLIP-T", "right")


def settings_given(sets: Sequence[str], *, method: str | None, steps: int | None) -> dict[str, Any]:
    """The settings that a command line gives, by dotted key; None for what it does not."""
    from dbcli.workflows.sweeps.run import parsed_sets

    own = {"method": method, "train.steps": steps}
    return {**parsed_sets(sets), **{key: value for key, value in own.items() if value is not None}}


def carry_out(
    call: Invocation, layout: Layout, plan: SweepPlan, *, engine: str, address: str | None, dry_run: bool
) -> int:
    """Lists a plan, or does it and shows what came of it; returns the exit code."""
    from dbcli.workflows.sweeps.run import run_plan, work_left

    if dry_run:
        with call.screen.stage("Estimating the time", 1) as stage:
            left = work_left(layout, plan)
            stage.advance()
        show_plan(call.screen, plan, left)
        return 0
    result: SweepResult = run_plan(
        layout, plan, engine=engine, address=address, progress=call.screen, offline=call.offline
    )
    show_result(call.screen, result, layout)
    code: int = result.exit_code
    return code


def show_plan(screen: Screen, plan: SweepPlan, left: Left) -> None:
    """Every cell with its runs, their words and steps, and how far it is."""
    cells = [
        {
            "key": cell.key,
            "values": dict(cell.request.values),
            "state": cell.state,
            "runs": [
                {
                    "key": stage.key,
                    "subjects": dict(stage.words),
                    "profile": stage.profile_name,
                    "method": stage.profile.method,
                    "steps": stage.profile.train.steps,
                    "after": stage.after,
                }
                for stage in cell.stages
            ],
            "suites": list(cell.score.suites),
            "count": cell.score.count,
            "judge": cell.score.judge,
        }
        for cell in plan.cells
    ]
    screen.document({"sweep": plan.sweep.name, "kind": plan.kind, "cells": cells, "left": asdict(left)})
    rows = [
        (
            cell.score.title,
            cell.state,
            " → ".join(", ".join(f"{name} as {word}" for name, word in stage.words) for stage in cell.stages),
            " + ".join(f"{stage.profile.train.steps} ({stage.profile_name})" for stage in cell.stages),
        )
        for cell in plan.cells
    ]
    unfinished = sum(cell.state != "finished" for cell in plan.cells)
    title = f"{plan.sweep.name}: {len(rows)} cells, {unfinished} of them still to finish"
    columns = (
        Column("cell", wraps=True, least=12),
        "state",
        Column("runs", wraps=True, least=12),
        Column("steps", wraps=True, least=8),
    )
    screen.table(title, columns, rows)
    screen.prose(f"Left in all: {left}.", style="")


def _metric_column(title: str) -> Column:
    """A score's column; fidelity to the subject and to the prompt stay at any width."""
    name = title.split()[0]
    return Column(title, right=True, drop=0 if name in MAIN_SCORES else 1)


def show_result(screen: Screen, result: SweepResult, layout: Layout) -> None:
    """The table, the failures, and where everything lies."""
    from dbcli.workflows.sweeps.run import result_table

    files = {kind: str(path) for kind, path in result.files.items()}
    screen.document({**result.scores, "files": files})
    headers, rows = result_table(result)
    first, cells, *metrics = headers
    columns = [Column(first, wraps=True, least=16), Column(cells, drop=5), *map(_metric_column, metrics)]
    screen.table(result.plan.sweep.name, columns, rows)
    for one in result.failed:
        error = one.record.error or {}
        screen.warn(f"{one.cell.score.title} failed: {error.get('message')}")
        if error.get("hint"):
            screen.note(f"  → {error['hint']}")
    if result.failed:
        screen.note("The same command tries again what failed; what is finished is left alone.")
    for path in result.files.values():
        screen.line(layout.shown(path))
