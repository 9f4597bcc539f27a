"""In what runs differ: settings, subjects, photos, base."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dbcli.project.runs.run_store import RunRecord
from dbcli.project.sweeps.sweep_files import shown
from dbcli.workflows.runs.labels import rendered_label

# What is told of every run once it differs at all; of other settings only values that are not the usual ones.
ALWAYS_TOLD = ("train.learning_rate", "train.steps", "lora.kind")
NOTHING = "–"


def differing_settings(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """The dotted settings, and the subjects, in which runs differ: key -> a value a run, as text."""
    tables = [_flat(record.profile) | _facts(record) for record in records]
    for table in tables:
        table["profile"] = table.pop("name", None)
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [str(table.get(key, NOTHING)) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def distinguishing(records: Sequence[RunRecord]) -> list[list[str]]:
    """For each run, in few words, what sets it apart from the others: "learning rate 1e-5", "prior images 100".

    Runs of one method and profile are set side by side by their settings; across profiles the profile's name says it.
    """
    found: list[list[str]] = [[] for _ in records]
    for places in _groups(records, lambda record: record.method):
        names = [str(records[place].profile.get("name", "?")) for place in places]
        if len(set(names)) > 1:
            _add(found, places, [f"profile {name}" for name in names])
    for places in _groups(records, lambda record: (record.method, record.profile.get("name"))):
        _add_settings(found, places, [_rendered(records[place]) for place in places])
    bases = [record.base.name for record in records]
    if len(set(bases)) > 1:
        _add(found, range(len(records)), [f"base {name}" for name in bases])
    for place, record in enumerate(records):
        found[place] += _origin(record)
    return found


def _rendered(record: RunRecord) -> dict[str, Any]:
    """A run's settings with its subject's words in templates."""
    table = _flat(record.profile)
    if len(record.subjects) != 1:
        return table
    words = record.subjects[0].identifier or "", record.subjects[0].class_noun
    return {key: rendered_label(value, words) if isinstance(value, str) else value for key, value in table.items()}


def _groups(records: Sequence[RunRecord], key: Any) -> list[list[int]]:
    found: dict[Any, list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault(key(record), []).append(place)
    return list(found.values())


def _add(found: list[list[str]], places: Sequence[int], words: Sequence[str]) -> None:
    for place, word in zip(places, words, strict=True):
        found[place].append(word)


def _add_settings(found: list[list[str]], places: Sequence[int], tables: Sequence[dict[str, Any]]) -> None:
    keys = dict.fromkeys([*ALWAYS_TOLD, *(key for table in tables for key in table if key != "name")])
    for key in keys:
        first = tables[0].get(key)
        if all(type(one := table.get(key)) is type(first) and one == first for table in tables):
            continue
        values = [shown(table[key]) if table.get(key) is not None else "none" for table in tables]
        counts = Counter(values)
        (usual, most), *others = counts.most_common()
        if not others:
            continue
        is_usual = key not in ALWAYS_TOLD and most > others[0][1]
        for place, value in zip(places, values, strict=True):
            if not (is_usual and value == usual):
                found[place].append(f"{_title(key)} {value}")


def _title(key: str) -> str:
    """A setting in words: "learning rate", "prior images"."""
    return key.removeprefix("train.").replace(".", " ").replace("_", " ")


def _origin(record: RunRecord) -> list[str]:
    words = [f"continues {record.parent}"] if record.parent else []
    return words + (["imported"] if record.imported_from else [])


def _facts(record: RunRecord) -> dict[str, Any]:
    words = ", ".join(one.text for one in record.subjects)
    photos = ", ".join(sorted(digest[:8] for one in record.subjects for digest in one.photo_hashes))
    return {
        "words": words,
        "photos": photos,
        "base": (record.base.hash or "?")[:12],
        "result of step": record.result_step,
    }


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
