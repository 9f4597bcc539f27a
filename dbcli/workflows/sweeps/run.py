"""Carrying out a sweep: what is finished is left alone, what failed is told, and a report ends it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import Interrupted, MachineError
from dbcli.project.files.atomic import write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.files.names import printable
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.settings.profiles import parse_set
from dbcli.project.sweeps.sweep_files import load_sweep
from dbcli.project.sweeps.sweep_records import CellRecord, SweepRecord, load_cell, save_sweep
from dbcli.workflows.progress import Progress
from dbcli.workflows.subjects.datasets import open_dataset
from dbcli.workflows.sweeps.engines import Engine, make_engine
from dbcli.workflows.sweeps.plan import (
    DRAW_ONLY,
    PlannedCell,
    SweepPlan,
    TrainUnit,
    Unit,
    is_finished,
    plan_sweep,
    suites_folder,
)
from dbcli.workflows.sweeps.remaining import Left, Pace
from dbcli.workflows.sweeps.sweep_subjects import SweepSubjects
from dbcli.workflows.sweeps.work import Outcome

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
    from dbcli.workflows.sweeps.report import write_reports

    worker = make_engine(engine, address)
    with hold(layout.sweep_lock(plan.sweep.name), f"the sweep {plan.sweep.name}"):
        _write_suites(layout, plan.suites, plan.sweep.name)
        if plan.random_seed is not None:
            progress.note(f"The random seed of {plan.sweep.name} is {plan.random_seed}; started again, it is kept.")
            write_json(layout.sweep_seed_file(plan.sweep.name), {"schema": 1, "random_seed": plan.random_seed})
        with _on_record(layout, plan) as record:
            _work(layout, plan, worker, progress, offline=offline)
            cells = tuple(CellResult(cell, _record(layout, cell)) for cell in plan.cells)
            record.state = "finished" if all(is_finished(one.record) for one in cells) else "failed"
        scores, files = write_reports(layout, plan, [(one.cell, one.record) for one in cells])
    return SweepResult(plan, cells, scores, files)


def _work(layout: Layout, plan: SweepPlan, worker: Engine, progress: Progress, *, offline: bool) -> None:
    """Does every unit that is left, and says after each how much is left in all."""
    units = unfinished_units(plan)
    left, pace = {unit.key: unit for unit in units}, Pace(layout, plan)
    progress.note(f"{plan.sweep.name}: {len(plan.cells)} cells, {_states(plan)}.")
    if units:
        progress.note(f"Left in all: {pace.left(units)}.")
    for number, outcome in enumerate(worker.carry_out(layout.root, units, progress, offline=offline), start=1):
        unit = left.pop(outcome.key)
        if outcome.is_fresh and outcome.error is None:
            pace.measured(unit, outcome.seconds)
        rest = f"; left in all: {pace.left(left.values())}" if left else ""
        progress.note(f"[{number}/{len(units)}] {printable(outcome.title, 200)}: {_ended(unit, outcome)}{rest}")


@contextmanager
def _on_record(layout: Layout, plan: SweepPlan) -> Iterator[SweepRecord]:
    """Keeps what was typed and how it ended: a sweep that was stopped or killed goes on with the same words."""
    done = sum(cell.state == "finished" for cell in plan.cells)
    record = SweepRecord(
        name=plan.sweep.name, command=typed_command(sys.argv[1:]), state="running", cells=len(plan.cells), finished=done
    )
    save_sweep(layout, record)
    try:
        yield record
    except Interrupted as stopped:
        record.state, stopped.hint = "interrupted", record.command
        raise
    except Exception:
        record.state = "failed"
        raise
    except BaseException:  # a signal while nothing was under way that could be finished first
        record.state = "interrupted"
        raise
    finally:
        record.finished = sum(is_finished(_record(layout, cell)) for cell in plan.cells)
        with suppress(OSError, MachineError):
            save_sweep(layout, record)


def typed_command(words: Sequence[str]) -> str:
    """A command line that can be pasted into a shell, without the project's folder: it is typed inside."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-C", "--project"):
            next(rest, None)
        elif not word.startswith(("--project=", "-C")):
            kept.append(word)
    return printable(shlex.join(["dreambooth", *kept]), 2000)


def work_left(layout: Layout, plan: SweepPlan) -> Left:
    """What is left of a plan, with an estimate of the time where this machine has not run it before."""
    return Pace(layout, plan, may_estimate=True).left(unfinished_units(plan))


def _states(plan: SweepPlan) -> str:
    counts = Counter(cell.state for cell in plan.cells)
    return ", ".join(f"{counts[state]} {state}" for state in ("finished", "begun", "failed", "to do") if counts[state])


def _ended(unit: Unit, outcome: Outcome) -> str:
    """ "trained", "scored" or "drawn": each said of what it is, and whether that was before."""
    if outcome.error is not None:
        return f"FAILED: {outcome.error['message']}"
    what = "trained" if isinstance(unit, TrainUnit) else "drawn" if unit.judge == DRAW_ONLY else "scored"
    return what if outcome.is_fresh else f"{what} before"


def unfinished_units(plan: SweepPlan) -> list[Unit]:
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
