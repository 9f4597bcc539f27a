"""Carrying out a sweep: what is finished is left alone, what failed is told, and a report ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import Interrupted
from dbcli.project.atomic import write_json
from dbcli.project.layout import Layout
from dbcli.project.locks import hold
from dbcli.project.names import printable
from dbcli.project.profiles import parse_set
from dbcli.project.sweep_files import load_sweep
from dbcli.project.sweep_records import CellRecord, load_cell
from dbcli.project.yaml_files import write_yaml
from dbcli.workflows.datasets import open_dataset
from dbcli.workflows.engines import make_engine
from dbcli.workflows.progress import Progress
from dbcli.workflows.sweep_plan import PlannedCell, SweepPlan, TrainUnit, Unit, plan_sweep, suites_folder
from dbcli.workflows.sweep_subjects import SweepSubjects

if TYPE_CHECKING:
    from dbcli.metrics.suites import Suite


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


def plan_file(
    layout: Layout,
    file: str,
    *,
    subjects: Sequence[str] = (),
    dataset: Path | None = None,
    sets: Sequence[str] = (),
    dry: bool,
    progress: Progress,
) -> SweepPlan:
    """A sweep file settled for this project. Raises every usage, config and collision error there is.

    Unless `dry`, subjects of `dataset` that the project lacks are added, and subjects without a word get one.
    """
    sweep = load_sweep(file).with_settings(parsed_sets(sets))
    if subjects:
        sweep = sweep.with_subjects(list(subjects))
    data = open_dataset(dataset, progress) if dataset is not None else None
    suites = {data.suite.name: data.suite} if data is not None else {}
    return plan_sweep(layout, sweep, SweepSubjects(layout, data, progress, dry=dry), own_suites=suites)


def parsed_sets(sets: Sequence[str]) -> dict[str, Any]:
    """The settings of `--set KEY=VALUE` by dotted key."""
    return dict(parse_set(text) for text in sets)


def run_plan(
    layout: Layout, plan: SweepPlan, *, engine: str, address: str | None, progress: Progress, offline: bool
) -> SweepResult:
    """Does what is left of a plan and writes its report; a cell that fails is recorded, the others go on.

    Raises Interrupted after a signal, and LockHeld while another process carries out the same sweep.
    """
    from dbcli.workflows.sweep_report import write_reports

    worker = make_engine(engine, address)
    with hold(layout.sweep_lock(plan.sweep.name), f"the sweep {plan.sweep.name}"):
        _write_suites(layout, plan.suites, plan.sweep.name)
        if plan.random_seed is not None:
            progress.note(f"The random seed of {plan.sweep.name} is {plan.random_seed}; started again, it is kept.")
            write_json(layout.sweep_seed_file(plan.sweep.name), {"schema": 1, "random_seed": plan.random_seed})
        units = _unfinished(plan)
        steps = sum(isinstance(unit, TrainUnit) for unit in units)
        progress.note(
            f"{plan.sweep.name}: {len(plan.cells)} cells, {_states(plan)}; {steps} runs and "
            f"{len(units) - steps} cells to look after."
        )
        try:
            for number, outcome in enumerate(worker.carry_out(layout.root, units, progress, offline=offline), start=1):
                progress.note(f"[{number}/{len(units)}] {printable(outcome.title, 200)}: {_ended(outcome.error)}")
        except Interrupted as stopped:
            stopped.hint = "the same command goes on from there"
            raise
        cells = tuple(CellResult(cell, _record(layout, cell)) for cell in plan.cells)
        scores, files = write_reports(layout, plan, [(one.cell, one.record) for one in cells])
    return SweepResult(plan, cells, scores, files)


def _states(plan: SweepPlan) -> str:
    counts = Counter(cell.state for cell in plan.cells)
    return ", ".join(f"{counts[state]} {state}" for state in ("finished", "begun", "failed", "to do") if counts[state])


def _ended(error: Mapping[str, Any] | None) -> str:
    return "done" if error is None else f"FAILED: {error['message']}"


def _unfinished(plan: SweepPlan) -> list[Unit]:
    """The units of cells that are not finished, each once and in order."""
    wanted = {unit.key for cell in plan.cells if cell.state != "finished" for unit in (*cell.stages, cell.score)}
    return [unit for unit in plan.units() if unit.key in wanted]


def _record(layout: Layout, cell: PlannedCell) -> CellRecord:
    found = load_cell(layout, cell.key)
    lost = {"message": "the cell's record is gone", "hint": None, "exit_code": 4}
    return found if found is not None else CellRecord(key=cell.key, state="failed", error=lost)


def _write_suites(layout: Layout, suites: Sequence[Suite], name: str) -> None:
    """Suites that do not ship are kept beside the results: the same on every machine, whatever becomes of a file."""
    from dbcli.metrics.suites import plain_suite

    folder = suites_folder(layout, name)
    for suite in suites:
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / f"{suite.name}.yaml", plain_suite(suite))


def result_table(result: SweepResult) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headers and rows of what the sweep found, as narrow as a terminal: without intervals."""
    from dbcli.reports.sweep_tables import rows_table

    table = rows_table(result.scores, with_published=result.plan.kind == "bench", with_intervals=False)
    return table.headers, table.rows
