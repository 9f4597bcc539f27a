"""What `sweep` and `bench` print: the plan of a dry run, the table at the end, and what failed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column
from dbcli.counts import counted

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.workflows.sweeps.engines import EngineOptions
    from dbcli.workflows.sweeps.remaining import Left
    from dbcli.workflows.sweeps.run import SweepResult
    from dbcli.workflows.sweeps.units import SweepPlan

MAIN_SCORES = ("DINO", "CLIP-T", "right")
CELL_COLUMNS = (
    Column("cell", wraps=True, least=12),
    Column("state"),
    Column("runs", wraps=True, least=12),
    Column("steps", wraps=True, least=8),
)


def carry_out(call: Invocation, plan: SweepPlan, engine: EngineOptions, *, dry_run: bool) -> int:
    """Lists a plan, or carries it out and shows what came of it; returns the exit code."""
    from dbcli.workflows.sweeps.run import run_plan, work_left

    if dry_run:
        with call.screen.stage("Estimating the time", 1) as stage:
            left = work_left(call.layout, plan)
            stage.advance()
        show_plan(call.screen, plan, left)
        return 0
    done = run_plan(call.layout, plan, engine, call.screen, offline=call.offline)
    show_result(call.screen, done, call.layout)
    return done.exit_code


def show_plan(screen: Screen, plan: SweepPlan, left: Left) -> None:
    """Every cell with its runs, their words and steps, and how far it is."""
    cells = [
        {
            "key": cell.score.key,
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
    screen.table(f"{plan.sweep.name}: {counted(len(rows), 'cell')}, {unfinished} unfinished", CELL_COLUMNS, rows)
    screen.prose(f"Left in all: {left}.", style="")


def show_result(screen: Screen, result: SweepResult, layout: Layout) -> None:
    """The table, the failures, and where everything lies."""
    from dbcli.workflows.sweeps.run import result_table

    screen.document({**result.scores, "files": result.files})
    headers, rows = result_table(result)
    first, cells, *metrics = headers
    # Fidelity to the subject and to the prompt stay at any width.
    scores = [Column(title, right=True, drop=0 if title.split()[0] in MAIN_SCORES else 1) for title in metrics]
    columns = [Column(first, wraps=True, least=16), Column(cells, drop=5), *scores]
    screen.table(result.plan.sweep.name, columns, rows)
    for one in result.failed:
        error = one.record.error or {}
        screen.warn(f"{one.cell.score.title} failed: {error.get('message')}")
        if error.get("hint"):
            screen.note(f"  → {error['hint']}")
    if result.failed:
        screen.note("Run the same command again to retry what failed; finished cells are kept.")
    for path in result.files.values():
        screen.line(layout.shown(path))
