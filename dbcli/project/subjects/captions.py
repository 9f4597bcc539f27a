"""Captions beside photos: `dog.txt` or `dog.caption` for `dog.jpg`, or one table for a folder.

Endings count in any case. A table is a Hugging Face image folder's `metadata.jsonl` or `metadata.csv`.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dbcli.project.files.names import printable, without_control_characters

# The first of these that lies beside a photo counts.
CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION = 2_000
TOO_LONG = f"longer than {MAX_CAPTION:,} characters"
# UTF-32's mark begins with UTF-16's, so it has to be looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
TABLE_NAMES = frozenset({"metadata.jsonl", "metadata.csv"})
FILE_COLUMN = "file_name"
# The first of these that a table has; trainers of the hub call it "text".
CAPTION_COLUMNS = ("text", "caption", "prompt")
MAX_TABLE_BYTES = 50_000_000


def decoded(raw: bytes) -> str:
    """Return text in UTF-8, with a mark or without, or in UTF-16 or UTF-32 with one.

    Raises ValueError for anything else; UTF-16 without a mark is told by its zeros.
    """
    encoding = next((encoding for mark, encoding in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError("not text in UTF-8, or in UTF-16 with a byte order mark") from error
    if "\0" in text:
        raise ValueError("not text in UTF-8, or in UTF-16 with a byte order mark")
    return text


def read_caption(path: Path) -> str | None:
    """Return the caption in a file, on one line, None for an empty one. Raises ValueError with what is wrong."""
    # Four bytes are the most that a character takes, and so is a mark.
    with path.open("rb") as file:
        raw = file.read(4 * MAX_CAPTION + 5)
    if len(raw) > 4 * MAX_CAPTION + 4:
        raise ValueError(TOO_LONG)
    text = without_control_characters(decoded(raw))
    if len(text) > MAX_CAPTION:
        raise ValueError(TOO_LONG)
    return text or None


class CaptionFiles:
    """Finds the caption file beside a photo; each folder is listed once, however many photos it holds."""

    def __init__(self) -> None:
        self._of_folder: dict[Path, dict[str, Path]] = {}

    def beside(self, photo: Path) -> Path | None:
        """The caption file of a photo, None where there is none."""
        if photo.parent not in self._of_folder:
            self._of_folder[photo.parent] = self._listed(photo.parent)
        return self._of_folder[photo.parent].get(photo.stem)

    @staticmethod
    def _listed(folder: Path) -> dict[str, Path]:
        try:
            files = [one for one in folder.iterdir() if one.suffix.lower() in CAPTION_SUFFIXES and one.is_file()]
        except OSError:
            return {}
        # .txt before .caption, and dog.txt before dog.TXT where a disk can hold both: what is last stays.
        rank = [(CAPTION_SUFFIXES.index(one.suffix.lower()), one.suffix not in CAPTION_SUFFIXES, one) for one in files]
        return {one.stem: one for _, _, one in sorted(rank, reverse=True)}


def read_caption_tables(files: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str], dict[Path, str]]:
    """Return the captions of all tables among `files`, photo -> caption, and what could not be used.

    That is photo -> a note of its caption that was left out, and table -> why nothing of it was read.
    """
    captions: dict[Path, str] = {}
    left_out: dict[Path, str] = {}
    faults: dict[Path, str] = {}
    for table in files:
        if not is_caption_table(table):
            continue
        try:
            found = dict(_captions(table))
        except (OSError, ValueError, RecursionError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
            faults[table] = f"its captions cannot be read: {printable(reason, 120)}"
            continue
        for photo, caption in found.items():
            if len(caption) > MAX_CAPTION:
                left_out[photo] = f"the caption in {printable(table.name)} was left out: {TOO_LONG}"
            else:
                captions[photo] = caption
    return captions, left_out, faults


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
        if caption:
            yield table.parent / name.replace("\\", "/"), caption
    if not has_captions:
        columns = ", ".join(CAPTION_COLUMNS)
        raise ValueError(f"no line has {FILE_COLUMN} and one of {columns}")


def _rows(table: Path, text: str) -> Iterable[Mapping[str, Any]]:
    if table.suffix.lower() == ".csv":
        yield from csv.DictReader(io.StringIO(text, newline=""))
        return
    # Only these end a line: JSON may hold the other characters at which Python ends one as they are.
    for number, line in enumerate(re.split(r"\r\n?|\n", text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON") from error
        if isinstance(row, dict):
            yield row
