"""Runs: numbered folders under `runs/`, each with its record and its events."""

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dbcli.errors import DataError, DreamboothError, RunMissing
from dbcli.project.files.atomic import (
    append_line,
    commit_folder,
    json_text,
    remove_folder,
    remove_leftovers,
    temporary_folder,
    write_json,
)
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.files.names import printable
from dbcli.project.files.records import Record, json_or_nothing, load_record, read_json_lines

RunState = Literal["created", "running", "finished", "interrupted", "failed"]
_RUN_NAME = re.compile(r"([0-9]{4,9})-[A-Za-z0-9._-]+")
_MAX_SLUG = 48
_NUMBERING_WAIT_SECONDS = 10.0
_MAX_NUMBER_BYTES = 1000


class _Part(BaseModel):
    # Kept, not refused: what a newer version adds to a record must survive this one's rewriting it.
    model_config = ConfigDict(extra="allow")


class RunSubject(_Part):
    """A subject as it was when the run began."""

    name: str
    class_noun: str
    identifier: str | None = None
    photo_hashes: list[str] = Field(default_factory=list)
    captions: list[str | None] = Field(default_factory=list, description="one per photo, as used")
    mask_hashes: list[str | None] = Field(default_factory=list, description="one per photo; empty without any mask")
    learnt_in: str | None = Field(default=None, description="the earlier run that trained it; none if this run did")
    rehearsed: bool = Field(default=False, description="learnt earlier; this run rehearsed its photos")
    prior: dict[str, Any] | None = Field(
        default=None, description="for an earlier subject: the prior's settings in the run that trained it"
    )

    @property
    def text(self) -> str:
        """Its words as a prompt has them: "sks dog"; an imported embedding may have no noun."""
        return f"{self.identifier or ''} {self.class_noun}".strip()


class RunBase(_Part):
    """The base a run started from; `hash` is over its weights and identifies it."""

    name: str
    source: str
    revision: str | None = None
    hash: str | None = None


class Fallback(_Part):
    """One step down the ladder of memory: after which training step, from what to what, and why."""

    step: int
    before: str
    after: str
    reason: str
    optimiser_is_new: bool = False


class SettingsChange(_Part):
    """Settings that a run was resumed with: from which step on, and dotted key -> [value before, value after]."""

    step: int
    time: str = Field(default_factory=lambda: now())
    settings: dict[str, list[Any]] = Field(default_factory=dict)


class RunRecord(Record):
    """The contents of `run.json`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    name: str
    state: RunState = "created"
    created: str = Field(default_factory=lambda: now())
    finished: str | None = None
    method: str
    profile: dict[str, Any] = Field(default_factory=dict, description="every setting, resolved")
    subjects: list[RunSubject] = Field(default_factory=list)
    base: RunBase
    versions: dict[str, str] = Field(default_factory=dict)
    device: str | None = None
    precision: str | None = Field(default=None, description="of the forward pass, as train.precision came out here")
    prior: dict[str, Any] = Field(default_factory=dict)
    probing: dict[str, Any] = Field(default_factory=dict, description="what was measured during training, and chosen")
    held_out: dict[str, Any] = Field(default_factory=dict, description="photos kept back, and the losses on them")
    timings: dict[str, float] = Field(default_factory=dict, description="seconds a phase")
    peak_memory_bytes: int | None = None
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    allow_collision: bool = Field(default=False, description="identifiers may collide: it was requested")
    parent: str | None = Field(default=None, description="the run this one started from")
    parent_weights: str | None = Field(default=None, description="sha256 of the manifest of that run's weights")
    generation: int = Field(default=0, description="how many runs it continues, one after another")
    work_key: str | None = Field(default=None, description="of the cell of a sweep that this run is made for")
    command: str | None = None
    error: str | None = None
    fallbacks: list[Fallback] = Field(default_factory=list, description="where memory ran out")
    changes: list[SettingsChange] = Field(default_factory=list, description="settings it was resumed with, in order")

    @property
    def result_step(self) -> int:
        """The step whose weights are the run's result: the last, or the one that probes chose."""
        chosen = self.probing.get("chosen_step")
        return chosen if isinstance(chosen, int) else self.step

    @property
    def number(self) -> int:
        """The number at the beginning of the name: 3 for "0003-dog"."""
        return _number(self.name) or 0

    @property
    def imported_from(self) -> Mapping[str, Any]:
        """The `file`, `sha256` and `metadata` that an imported run came from; empty for one trained here."""
        return (self.model_extra or {}).get("imported") or {}

    @property
    def shown(self) -> list[RunSubject]:
        """The subjects whose photos the run sees: those it teaches, then those it rehearses."""
        return [one for one in self.subjects if one.learnt_in is None or one.rehearsed]


def now() -> str:
    """Return the time in UTC as records hold it: 2026-01-31T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create_run(layout: Layout, slug: str, record: Callable[[str], RunRecord] | None = None) -> str:
    """Make the folder of a new run; return its name, "0003-dog": the highest number so far and one.

    The number of a removed run is not given again: what names it, a comparison or an image, means no other run.
    `record` makes the run's first record from its name; a run is never seen without it.
    """
    ending = re.sub(r"[^A-Za-z0-9._-]+", "-", slug).strip("-.")[:_MAX_SLUG].strip("-.") or "run"
    layout.runs_dir.mkdir(parents=True, exist_ok=True)
    with _numbering(layout):
        number = _highest_number(layout) + 1
        name = f"{number:04d}-{ending}"
        remove_leftovers(layout.runs_dir)
        with temporary_folder(layout.run_dir(name)) as folder:
            if record is not None:
                write_json(folder / "run.json", record(name).to_plain())
            commit_folder(folder, layout.run_dir(name))
        _keep_number(layout, number)
    return name


def load_run(layout: Layout, name: str) -> RunRecord:
    """Return the record of a run; RunMissing if there is none, DataError if it is damaged."""
    try:
        record = load_record(RunRecord, layout.run_file(name), f"record of the run '{name}'", DataError)
    except FileNotFoundError as error:
        raise _missing(layout, name) from error
    if record.name != name:
        raise DataError(f"{layout.run_file(name)} is the record of '{printable(record.name)}', not of '{name}'.")
    return record


def save_run(layout: Layout, record: RunRecord) -> None:
    """Replace the record of a run in one step."""
    write_json(layout.run_file(record.name), record.to_plain())


def read_runs(layout: Layout) -> tuple[list[RunRecord], list[str]]:
    """Return all runs whose record can be read, oldest first, and a line for each whose record is damaged.

    Folders without a record are not counted.
    """
    results = [_try_load(layout, name) for name in _folders(layout)]
    records = [result for result in results if isinstance(result, RunRecord)]
    return records, [result for result in results if isinstance(result, str)]


def list_runs(layout: Layout) -> list[RunRecord]:
    """Return all runs whose record can be read, oldest first; see `read_runs` for the rest."""
    return read_runs(layout)[0]


def newest_run(layout: Layout, states: Collection[str] = ("finished",)) -> RunRecord:
    """Return the run with the highest number in one of `states`, or raise RunMissing."""
    for name in reversed(_folders(layout)):
        record = _try_load(layout, name)
        if isinstance(record, RunRecord) and record.state in states:
            return record
    kind = "finished" if set(states) == {"finished"} else "unfinished" if "finished" not in states else ""
    raise RunMissing(
        f"There is no {kind} run in {layout.root}." if kind else f"There is no run in {layout.root}.",
        hint="dreambooth train makes one; dreambooth runs list shows all",
    )


def find_run(layout: Layout, text: str) -> RunRecord:
    """Return the run a person means by "3", "0003", "0003-dog" or "runs/0003-dog", or raise RunMissing."""
    return load_run(layout, run_named(layout, text))


def run_named(layout: Layout, text: str) -> str:
    """Return the name of the run that `find_run` would load, even one whose record is damaged."""
    wanted = text.strip().removeprefix("./").removeprefix("runs/").rstrip("/")
    number = int(wanted[:12]) if wanted.isascii() and wanted.isdecimal() else None
    folders = _folders(layout)
    numbered = [name for name in folders if number is not None and _number(name) == number]
    found = [wanted] if wanted in folders else numbered
    if not found or not layout.run_file(found[0]).is_file():
        raise _missing(layout, wanted)
    return found[0]


def remove_run(layout: Layout, name: str) -> None:
    """Delete a run with all its files. Raises RunMissing, or LockHeld while a process writes into it."""
    folder = layout.run_dir(name)
    if not folder.is_dir():
        raise _missing(layout, name)
    with hold(layout.run_lock(name), f"the run {name}"), _numbering(layout):
        _keep_number(layout, _highest_number(layout))
        remove_folder(folder)


def append_event(layout: Layout, run: str, event: Mapping[str, Any]) -> None:
    """Add one event to `events.jsonl`, whole or not at all; numbers that are not finite become null."""
    append_line(layout.events_file(run), json_text(dict(event)))


def read_events(layout: Layout, run: str) -> list[dict[str, Any]]:
    """Return the events of a run in order; a line that a crash cut short is left out."""
    return list(read_json_lines(layout.events_file(run)))


def _numbering(layout: Layout) -> AbstractContextManager[None]:
    return hold(layout.numbering_lock, "the numbering of runs", wait_seconds=_NUMBERING_WAIT_SECONDS)


def _highest_number(layout: Layout) -> int:
    """The highest number that a run has, or had before it was removed; 0 before the first. For a holder of the lock."""
    kept = json_or_nothing(layout.run_number_file, _MAX_NUMBER_BYTES).get("number")
    return max([_number(one) or 0 for one in _folders(layout)] + ([kept] if type(kept) is int else []), default=0)


def _keep_number(layout: Layout, number: int) -> None:
    write_json(layout.run_number_file, {"schema": 1, "number": number})


def _folders(layout: Layout) -> list[str]:
    folder = layout.runs_dir
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if _RUN_NAME.fullmatch(entry.name) and entry.is_dir()]
    return sorted(names, key=lambda name: (_number(name) or 0, name))


def _number(name: str) -> int | None:
    match = _RUN_NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def _try_load(layout: Layout, name: str) -> RunRecord | str | None:
    try:
        return load_run(layout, name)
    except RunMissing:
        return None
    except DreamboothError as error:
        return error.message


def _missing(layout: Layout, name: str) -> RunMissing:
    known = ", ".join(_folders(layout)[-5:]) or "none yet"
    return RunMissing(f"There is no run '{printable(name)}' here. The newest: {known}.", hint="dreambooth runs list")
