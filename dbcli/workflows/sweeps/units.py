"""The units of work of a sweep, and the plan that they make: one unit a run, one a cell to be drawn and scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dbcli.project.settings.profile_settings import Profile
from dbcli.project.sweeps.cells import CellRequest
from dbcli.project.sweeps.sweep_files import SweepFile

if TYPE_CHECKING:
    from dbcli.metrics.suites import Suite

GENERATE_ONLY = "none"
State = Literal["finished", "failed", "begun", "to do"]
Kind = Literal["sweep", "bench"]


@dataclass(frozen=True)
class TrainUnit:
    """One run to be made: everything that decides its weights. `after` is the key of the run it continues."""

    key: str
    title: str
    words: tuple[tuple[str, str], ...]
    profile_name: str
    profile: Profile
    after: str | None = None
    allow_collision: bool = False


@dataclass(frozen=True)
class ScoreUnit:
    """One cell to be drawn and scored: the last of `runs` (their keys) draws. Suites are names or paths; `faces`
    of people are scored, too."""

    key: str
    title: str
    runs: tuple[str, ...]
    suites: tuple[str, ...]
    count: int
    seed: int | None
    judge: str
    interference: bool = False
    faces: bool = False

    @property
    def after(self) -> str:
        """The key of the run that draws."""
        return self.runs[-1]


Unit = TrainUnit | ScoreUnit


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its work in order, and how far it is."""

    request: CellRequest
    stages: tuple[TrainUnit, ...]
    score: ScoreUnit
    state: State

    @property
    def units(self) -> tuple[Unit, ...]:
        """The work of the cell: its runs, then their images."""
        return (*self.stages, self.score)


@dataclass(frozen=True)
class SweepPlan:
    """All cells of a sweep, settled. `suites` are those that do not ship, to be written beside the results.

    `random_seed` is what -1 became, to be kept for the next start.
    """

    sweep: SweepFile
    kind: Kind
    cells: tuple[PlannedCell, ...]
    suites: tuple[Suite, ...]
    random_seed: int | None = None

    def units(self) -> list[Unit]:
        """Every piece of work once, each after what it needs."""
        return list({unit.key: unit for cell in self.cells for unit in cell.units}.values())

    def unfinished_units(self) -> list[Unit]:
        """The units of cells that are not finished, each once and in order."""
        wanted = {unit.key for cell in self.cells if cell.state != "finished" for unit in cell.units}
        return [unit for unit in self.units() if unit.key in wanted]
