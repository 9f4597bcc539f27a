"""Carrying out a sweep: what is finished is left alone, what failed is told, and a report ends it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.counts import counted
from dbcli.errors import Interrupted, MachineError
from dbcli.project.files.atomic import write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.files.names import printable
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.sweeps.sweep_records import CellRecord, SweepRecord, load_cell, save_sweep
from dbcli.workflows.progress import Progress
from dbcli.workflows.sweeps.engines import Engine, EngineOptions
from dbcli.workflows.sweeps.remaining import Left, Pace
from dbcli.workflows.sweeps.units import GENERATE_ONLY, PlannedCell, SweepPlan, TrainUnit, Unit
from dbcli.workflows.sweeps.work import Outcome
from dbcli.workflows.typed_command import typed_command


@dataclass(frozen=True)
class CellResult:
    """A cell and how it ended."""

    cell: PlannedCell
    record: CellRecord


@dataclass(frozen=True)
class SweepResult:
    """A sweep that was carried out: its cells, its scores.json, and the files that show it."""

    plan: SweepPlan
    cells: tuple[CellResult, ...]
    scores: dict[str, Any]
    files: Mapping[str, Path]

    @property
    def failed(self) -> list[CellResult]:
        return [one for one in self.cells if one.record.state == "failed"]

    @property
    def exit_code(self) -> int:
        """0, or that of the first failure."""
        return next((int((one.record.error or {}).get("exit_code", 1)) for one in self.failed), 0)


def run_plan(
    layout: Layout, plan: SweepPlan, engine: EngineOptions, progress: Progress, *, offline: bool
) -> SweepResult:
    """Does what is left of a plan and writes its report; a cell that fails is recorded, the others go on.

    Raises Interrupted after a signal, and LockHeld while another process carries out the same sweep.
    """
    from dbcli.workflows.sweeps.report import write_reports

    worker, name = engine.make(), plan.sweep.name
    with hold(layout.sweep_lock(name), f"the sweep {name}"):
        _write_suites(layout, plan)
        if plan.random_seed is not None:
            progress.note(f"The random seed of {name} is {plan.random_seed}; started again, it is kept.")
            write_json(layout.sweep_seed_file(name), {"schema": 1, "random_seed": plan.random_seed})
        with _on_record(layout, plan) as record:
            _work(layout, plan, worker, progress, offline=offline)
            cells = tuple(CellResult(cell, _record(layout, cell)) for cell in plan.cells)
            record.state = "finished" if all(one.record.state == "finished" for one in cells) else "failed"
        scores, files = write_reports(layout, plan, [(one.cell, one.record) for one in cells])
    return SweepResult(plan, cells, scores, files)


def _work(layout: Layout, plan: SweepPlan, worker: Engine, progress: Progress, *, offline: bool) -> None:
    """Does every unit that is left, and says after each how much is left in all."""
    units, pace = plan.unfinished_units(), Pace(layout, plan)
    left = {unit.key: unit for unit in units}
    counts = Counter(cell.state for cell in plan.cells)
    states = [f"{counts[state]} {state}" for state in ("finished", "begun", "failed", "to do") if counts[state]]
    progress.note(f"{plan.sweep.name}: {counted(len(plan.cells), 'cell')}, {', '.join(states)}.")
    if units:
        progress.note(f"Left in all: {pace.left(units)}.")
    for number, outcome in enumerate(worker.carry_out(layout.root, units, progress, offline=offline), start=1):
        unit = left.pop(outcome.key)
        if outcome.was_to_do and outcome.error is None:
            pace.measured(unit, outcome.seconds)
        rest = f"; left in all: {pace.left(left.values())}" if left else ""
        progress.note(f"[{number}/{len(units)}] {printable(outcome.title, 200)}: {_ended(unit, outcome)}{rest}")


@contextmanager
def _on_record(layout: Layout, plan: SweepPlan) -> Iterator[SweepRecord]:
    """Keeps what was typed and how it ended: a sweep that was stopped or killed goes on with the same words."""
    done = sum(cell.state == "finished" for cell in plan.cells)
    record = SweepRecord(
        name=plan.sweep.name, command=typed_command(), state="running", cells=len(plan.cells), finished=done
    )
    save_sweep(layout, record)
    try:
        yield record
    except Interrupted as stopped:
        record.state, stopped.hint = "interrupted", record.command
        raise
    except BaseException as error:
        # What is no Exception is a signal while nothing was under way that could be finished first.
        record.state = "failed" if isinstance(error, Exception) else "interrupted"
        raise
    finally:
        record.finished = sum(_record(layout, cell).state == "finished" for cell in plan.cells)
        with suppress(OSError, MachineError):
            save_sweep(layout, record)


def work_left(layout: Layout, plan: SweepPlan) -> Left:
    """What is left of a plan, with an estimate of the time where this machine has not run it before."""
    return Pace(layout, plan, may_estimate=True).left(plan.unfinished_units())


def _ended(unit: Unit, outcome: Outcome) -> str:
    """ "trained", "scored" or "drawn": each said of what it is, and whether that was before."""
    if outcome.error is not None:
        return f"FAILED: {outcome.error['message']}"
    what = "trained" if isinstance(unit, TrainUnit) else "generated" if unit.judge == GENERATE_ONLY else "scored"
    return what if outcome.was_to_do else f"{what} before"


def _record(layout: Layout, cell: PlannedCell) -> CellRecord:
    lost = {"message": "the cell's record is gone", "hint": None, "exit_code": 4}
    return load_cell(layout, cell.score.key) or CellRecord(key=cell.score.key, state="failed", error=lost)


def _write_suites(layout: Layout, plan: SweepPlan) -> None:
    """Suites that do not ship are kept beside the results: the same on every machine, whatever becomes of a file."""
    from dbcli.metrics.suites import plain_suite

    for suite in plan.suites:
        file = layout.sweep_suite_file(plan.sweep.name, suite.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_yaml(file, plain_suite(suite))


def result_table(result: SweepResult) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headers and rows of what the sweep found, as narrow as a terminal: without intervals."""
    from dbcli.reports.sweep_tables import beside_published, rows_table

    table = rows_table(result.scores, with_published=beside_published(result.scores), with_intervals=False)
    return table.headers, table.rows
