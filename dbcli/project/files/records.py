"""What all records on disk share: a schema number, strict reading, and errors that name the file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dbcli.errors import ConfigError, DreamboothError
from dbcli.project.files.names import printable
from dbcli.project.files.yaml_files import read_yaml

SCHEMA = 1
MAX_RECORD_BYTES = 50_000_000


def _whole(value: object) -> object:
    # `steps: 1e3` is a thousand steps; `steps: true` is a mistake, though Python counts True as 1.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Whole = Annotated[int, BeforeValidator(_whole)]


class Record(BaseModel):
    """A record with `"schema": 1`; in Python the number is `schema_number`. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_number: Literal[1] = Field(default=1, alias="schema")

    def to_plain(self) -> dict[str, Any]:
        """Return the record as plain values for JSON or YAML, under the names used on disk."""
        return self.model_dump(mode="json", by_alias=True)


RecordType = TypeVar("RecordType", bound=Record)


def load_record(
    kind: type[RecordType], path: Path, what: str, failure: type[DreamboothError] = ConfigError
) -> RecordType:
    """Return the record in a `.yaml` or `.json` file, or raise `failure` naming the file and every fault.

    A missing file is the caller's matter: it passes through as FileNotFoundError.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        raw = read_yaml(path) if path.suffix == ".yaml" else _read_json(path)
    except (ConfigError, ValueError, OSError, RecursionError) as error:
        text = error.message if isinstance(error, ConfigError) else f"{path}: {_first_line(error)}."
        raise failure(f"The {what} is damaged. {text}") from error
    found = raw.get("schema", SCHEMA)
    if isinstance(found, int) and found > SCHEMA:
        raise failure(
            f"{path} was written by a newer dreambooth (schema {found}; this one knows {SCHEMA}).",
            hint="update dreambooth",
        )
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise failure(f"The {what} in {path} has faults:\n" + "\n".join(faults(error))) from error


def faults(error: ValidationError) -> list[str]:
    """Return one line a fault: the dotted key, the value found, and what it should be."""
    lines = []
    for fault in error.errors(include_url=False):
        # Of a key that is wrong itself pydantic says so at the end.
        key = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "(whole)"
        lines.append(f"  {key}: {fault_text(fault['type'], fault['msg'], fault.get('input'))}")
    return lines


def fault_text(kind: str, message: str, found: object) -> str:
    """Return one fault in plain words, with the value found."""
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a known key"
    if kind == "model_type":
        message = "Input should be a valid dictionary"
    text = message.removeprefix("Value error, ")
    text = "should be " + text[len("Input should be ") :] if text.startswith("Input should be ") else text
    text = text.replace("a valid boolean", "true or false").replace("a valid integer", "a whole number")
    text = text.replace("a valid number", "a number").replace("a valid string", "text")
    text = text.replace("a valid list", "a list").replace("a valid dictionary", "a mapping")
    return f"{text} (found {printable(repr(found), 60)})"


def json_or_nothing(path: Path, most_bytes: int = MAX_RECORD_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where it is not there, too large, or not to be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= most_bytes else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file with one a line; a line that a crash cut short is left out, as is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise ValueError(f"larger than {MAX_RECORD_BYTES:,} bytes")
    raw = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ValueError("should hold one JSON object")
    return raw


def _first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0], 200)
