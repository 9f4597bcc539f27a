"""What is kept of finished work: runs and cells known by a hash of everything that decides their result."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dbcli.errors import DataError
from dbcli.project.files.atomic import json_text, write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.records import Record, load_record
from dbcli.project.runs.run_store import RunRecord, list_runs, now

KEY_DIGITS = 24
SWEEP_FILE = "sweep.json"


class CellRecord(Record):
    """The contents of `sweeps/.cells/KEY.json`: how a cell ended. Nothing in it depends on when or where."""

    key: str
    state: Literal["finished", "failed"]
    runs: list[str] = Field(default_factory=list, description="the runs of the cell, in order")
    scores: list[dict[str, Any]] = Field(default_factory=list, description="one scores.json per suite")
    pictures: list[dict[str, Any]] = Field(default_factory=list, description="subject, label and files of each prompt")
    interference: dict[str, Any] | None = Field(default=None, description="as in interference.json")
    error: dict[str, Any] | None = Field(default=None, description="message, hint and exit code of a failure")


class SweepRecord(Record):
    """The contents of `sweeps/NAME/sweep.json`: what was typed, and how far it came when it was last written."""

    name: str
    command: str
    state: Literal["running", "interrupted", "failed", "finished"]
    cells: int
    finished: int
    begun: str = Field(default_factory=lambda: now())


def save_sweep(layout: Layout, record: SweepRecord) -> None:
    """Replace the record of a sweep in one step."""
    path = layout.sweep_dir(record.name) / SWEEP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record.to_plain())


def list_sweeps(layout: Layout) -> list[SweepRecord]:
    """Return the sweeps that were ever begun, oldest first; those without a readable record are left out."""
    found = []
    for path in sorted(layout.sweeps_dir.glob(f"*/{SWEEP_FILE}")):
        try:
            record = load_record(SweepRecord, path, f"record of the sweep {path.parent.name}", DataError)
        except (FileNotFoundError, DataError):
            continue
        if record.name == path.parent.name:
            found.append(record)
    return sorted(found, key=lambda record: record.begun)


def key_of(content: Mapping[str, Any]) -> str:
    """Return 24 hex digits that are the same for the same content, whatever the order of its own keys.

    The order of keys further inside counts.
    """
    plain = json_text({name: content[name] for name in sorted(content)})
    return hashlib.sha256(plain.encode()).hexdigest()[:KEY_DIGITS]


def load_cell(layout: Layout, key: str) -> CellRecord | None:
    """Return how a cell ended; None for one that was never carried out, or whose record is damaged."""
    try:
        record = load_record(CellRecord, layout.cell_file(key), f"record of the cell {key}", DataError)
    except (FileNotFoundError, DataError):
        # A cell can be made again from its run; a record that says nothing must not end a sweep.
        return None
    return record if record.key == key else None


def save_cell(layout: Layout, record: CellRecord) -> None:
    """Replace the record of a cell in one step."""
    path = layout.cell_file(record.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record.to_plain())


def runs_by_key(layout: Layout) -> dict[str, RunRecord]:
    """Return the newest run of each key; runs that no sweep made have none."""
    return {record.work_key: record for record in list_runs(layout) if record.work_key}
