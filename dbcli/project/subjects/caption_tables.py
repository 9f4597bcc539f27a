"""Captions in a table beside the photos: a Hugging Face image folder's `metadata.jsonl` or `metadata.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dbcli.project.files.names import printable, without_control_characters
from dbcli.project.subjects.caption_files import MAX_CAPTION, decoded

TABLE_NAMES = frozenset({"metadata.jsonl", "metadata.csv"})
FILE_COLUMN = "file_name"
# The first of these that a table has; trainers of the hub call it "text".
CAPTION_COLUMNS = ("text", "caption", "prompt")
MAX_TABLE_BYTES = 50_000_000


def read_caption_tables(files: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the captions of all tables among `files`, photo -> caption, and why a table could not be used."""
    captions: dict[Path, str] = {}
    faults: dict[Path, str] = {}
    for table in files:
        if not is_caption_table(table):
            continue
        try:
            captions |= dict(_captions(table))
        except (OSError, ValueError, RecursionError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
            faults[table] = f"its captions cannot be read: {printable(reason, 120)}"
    return captions, faults


def is_caption_table(path: Path) -> bool:
    """Whether a file is named as a table of captions is, in any case."""
    return path.name.lower() in TABLE_NAMES


def _captions(table: Path) -> Iterator[tuple[Path, str]]:
    if table.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"larger than {MAX_TABLE_BYTES:,} bytes")
    text = decoded(table.read_bytes())
    has_captions = False
    for row in _rows(table, text):
        name = row.get(FILE_COLUMN)
        caption = next((row[column] for column in CAPTION_COLUMNS if isinstance(row.get(column), str)), None)
        if not isinstance(name, str) or caption is None:
            continue
        has_captions = True
        caption = without_control_characters(caption)
        # The path is only compared with files that were found otherwise, so it can lead nowhere.
        if caption and len(caption) <= MAX_CAPTION:
            yield table.parent / name.replace("\\", "/"), caption
    if not has_captions:
        columns = ", ".join(CAPTION_COLUMNS)
        raise ValueError(f"no line has {FILE_COLUMN} and one of {columns}")


def _rows(table: Path, text: str) -> Iterable[Mapping[str, Any]]:
    if table.suffix.lower() == ".csv":
        yield from csv.DictReader(io.StringIO(text, newline=""))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON") from error
        if isinstance(row, dict):
            yield row
