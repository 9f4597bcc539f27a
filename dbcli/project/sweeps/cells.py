"""A sweep multiplied out: every cell with its labels and the runs it is made of."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dbcli.errors import ConfigError
from dbcli.project.files.names import printable
from dbcli.project.sweeps.sweep_files import CellPart, RunPart, StagePart, SweepFile

Part = TypeVar("Part", bound=RunPart)


@dataclass(frozen=True)
class StageRequest:
    """One run of a cell as it was requested: subjects, their words where given, settings by dotted key."""

    subjects: tuple[str, ...]
    identifiers: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    allow_collision: bool = False


@dataclass(frozen=True)
class CellRequest:
    """One cell: where it stands on each axis, and its runs in order."""

    values: tuple[tuple[str, str], ...]
    stages: tuple[StageRequest, ...]

    @property
    def label(self) -> str:
        """The cell in a few words: "8 · dog", or "run" where there is no grid."""
        return " · ".join(value for _, value in self.values) or "run"


def cells_of(sweep: SweepFile) -> list[CellRequest]:
    """Every cell of a sweep, the last axis changing fastest.

    Raises one ConfigError naming every `$word` that no axis fills, and every cell without a subject.
    """
    found: list[CellRequest] = []
    faults: dict[str, None] = {}
    for points in itertools.product(*(points.items() for points in sweep.grid.values())):
        values = tuple((name, label) for name, (label, _) in zip(sweep.grid, points, strict=True) if name)
        cell = _merged(CellPart, sweep, *(part for _, part in points))
        stages = [_stage(_merged(StagePart, cell, run), faults) for run in cell.runs or [StagePart()]]
        found.append(CellRequest(values, tuple(stages)))
    if faults:
        raise ConfigError(f"The sweep '{sweep.name}' has faults:\n" + "\n".join(f"  {line}" for line in faults))
    return found


def _merged(kind: type[Part], *parts: RunPart) -> Part:
    """What several parts set together, the last winning; settings and words by their keys."""
    values: dict[str, Any] = {"settings": {}, "words": {}}
    for part in parts:
        for name in part.model_fields_set:
            value = getattr(part, name)
            values[name] = values[name] | value if name in ("settings", "words") else value
    return kind.model_construct(**values)


def _stage(found: StagePart, faults: dict[str, None]) -> StageRequest:
    def filled(text: str) -> str:
        if text.startswith("$") and text not in found.words:
            faults[f"{printable(text)}: no axis of the grid sets it"] = None
        return found.words.get(text, text)

    names = tuple(filled(name) for name in found.subject or ())
    if not names:
        faults["subject: is missing; name it at the top, in the grid or in every run"] = None
    given = found.identifier
    words = given if isinstance(given, dict) else dict.fromkeys(names, given) if given else {}
    identifiers = {filled(name): filled(word) for name, word in words.items()}
    return StageRequest(
        subjects=names,
        identifiers={name: word for name, word in identifiers.items() if name in names},
        profile=filled(found.profile) if found.profile else None,
        settings=found.settings | ({} if found.rehearsal else {"train.rehearsal_share": 0.0}),
        continues=found.continues is not None,
        allow_collision=found.allow_collision,
    )
