"""A sweep multiplied out: every cell with its labels and the runs it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dbcli.errors import ConfigError
from dbcli.project.files.names import printable
from dbcli.project.settings.profiles import flattened, known_keys
from dbcli.project.sweeps.faults import Bundle
from dbcli.project.sweeps.sweep_files import SweepFile


@dataclass(frozen=True)
class StageRequest:
    """One run of a cell as it was asked for: subjects, their words where given, settings by dotted key."""

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
    for points in itertools.product(*([(axis.name, *point) for point in axis.points] for axis in sweep.axes)):
        values = tuple((name, label) for name, label, _ in points if name)
        merged = _merged([sweep.shared, *(bundle for _, _, bundle in points)])
        words = {key: value for key, value in merged.items() if key.startswith("$")}
        stages = [_stage(_merged([merged, stage]), words, faults) for stage in merged.get("runs") or [{}]]
        found.append(CellRequest(values, tuple(stages)))
    if faults:
        raise ConfigError(f"The sweep '{sweep.name}' has faults:\n" + "\n".join(f"  {line}" for line in faults))
    return found


def _merged(bundles: list[Bundle]) -> dict[str, Any]:
    """What several bundles set together, the last winning; settings by dotted key under `settings`."""
    known = known_keys()
    merged: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for bundle in bundles:
        settings |= flattened(bundle.get("settings") or {})
        settings |= {key: value for key, value in bundle.items() if key in known}
        merged |= {key: value for key, value in bundle.items() if key not in known and key != "settings"}
    return merged | {"settings": settings}


def _stage(found: Mapping[str, Any], words: Mapping[str, str], faults: dict[str, None]) -> StageRequest:
    def filled(text: str) -> str:
        if text.startswith("$") and text not in words:
            faults[f"{printable(text)}: no axis of the grid sets it"] = None
        return words.get(text, text)

    given = found.get("subject")
    names = tuple(filled(name) for name in ([given] if isinstance(given, str) else given or ()))
    if not names:
        faults["subject: is missing; name it at the top, in the grid or in every run"] = None
    identifier = found.get("identifier")
    if isinstance(identifier, Mapping):
        identifiers = {filled(name): filled(word) for name, word in identifier.items()}
    else:
        identifiers = dict.fromkeys(names, filled(identifier)) if identifier else {}
    profile = found.get("profile")
    return StageRequest(
        subjects=names,
        identifiers={name: word for name, word in identifiers.items() if name in names},
        profile=filled(profile) if profile else None,
        settings=found["settings"] | ({} if found.get("rehearsal", True) else {"train.rehearsal_share": 0.0}),
        continues="from" in found,
        allow_collision=found.get("allow_collision", False),
    )
