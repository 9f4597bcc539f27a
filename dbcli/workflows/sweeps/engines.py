"""Where a sweep's work is done: here one piece after another, or on a cluster (ray_engine.py)."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dbcli.errors import UsageError
from dbcli.workflows.completions import ENGINES
from dbcli.workflows.progress import Progress, Titled
from dbcli.workflows.sweeps.units import Unit
from dbcli.workflows.sweeps.work import Outcome, carry_out


class Engine(Protocol):
    """Something that does units of work, each after the one it needs."""

    def carry_out(self, root: Path, units: Sequence[Unit], progress: Progress, *, offline: bool) -> Iterator[Outcome]:
        """Yields an outcome a unit, in the order in which they end; a unit that fails ends nothing but its own."""
        ...


class LocalEngine:
    """One unit after another, in this process."""

    def carry_out(self, root: Path, units: Sequence[Unit], progress: Progress, *, offline: bool) -> Iterator[Outcome]:
        ended: dict[str, Outcome] = {}
        for number, unit in enumerate(units, start=1):
            before = ended[unit.after] if unit.after is not None else None
            titled = Titled(progress, f"[{number}/{len(units)}]")
            ended[unit.key] = carry_out(root, unit, before, titled, offline=offline)
            # Models hold each other in circles; the next one needs their memory.
            gc.collect()
            yield ended[unit.key]


@dataclass(frozen=True)
class EngineOptions:
    """Which engine does the work, and with `ray` the address of its cluster."""

    name: str = "local"
    address: str | None = None

    def make(self) -> Engine:
        """The engine. Raises UsageError for a name there is not, and for an address that nothing reads."""
        if self.name not in ENGINES:
            raise UsageError(f"There is no engine '{self.name}'.", hint="--engine " + " or --engine ".join(ENGINES))
        if self.name == "local":
            if self.address is not None:
                raise UsageError("--address is for --engine ray.", hint="add --engine ray, or leave --address out")
            return LocalEngine()
        from dbcli.workflows.sweeps.ray_engine import RayEngine

        return RayEngine(self.address)
