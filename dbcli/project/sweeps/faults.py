"""What can be wrong with a sweep file's form: every fault in words, with its place and the value found."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from dbcli.errors import DreamboothError
from dbcli.project.files.names import check_name, printable
from dbcli.project.seeds import RULE, is_seed
from dbcli.project.settings.profiles import flattened, known_keys

RUN_KEYS = ("subject", "identifier", "profile", "settings", "allow_collision")
STAGE_KEYS = (*RUN_KEYS, "from", "rehearsal")
CELL_KEYS = (*RUN_KEYS, "runs")
FILE_KEYS = ("name", "about", "average_over", "pictures", "judge", "interference", "grid", *CELL_KEYS)
IMAGE_KEYS = ("suite", "prompts", "count", "seed")
MAX_CELLS = 10_000
Bundle = Mapping[str, Any]


def shown(value: Any) -> str:
    """A value of an axis as a label: 1e-6, true, dog + cat."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " + ".join(shown(one) for one in value)
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def file_faults(found: Mapping[str, Any]) -> Iterator[str]:
    """Every fault of a file's form, in words."""
    for key in found:
        if key not in FILE_KEYS:
            yield _unknown(key, FILE_KEYS)
    try:
        check_name(found.get("name", ""), "sweep")
    except DreamboothError as error:
        yield f"name: {error.message}"
    for key in ("about", "judge"):
        if not isinstance(found.get(key, ""), str):
            yield f"{key}: should be text{_found(found[key])}"
    if not isinstance(found.get("interference", False), bool):
        yield f"interference: should be true or false{_found(found['interference'])}"
    yield from _bundle_faults("", {key: value for key, value in found.items() if key in CELL_KEYS}, CELL_KEYS)
    yield from _image_faults(found.get("pictures"))
    yield from _grid_faults(found.get("grid"), found.get("average_over"))


def _image_faults(pictures: Any) -> Iterator[str]:
    if pictures is None:
        return
    if not isinstance(pictures, Mapping):
        yield f"pictures: should be a mapping of {', '.join(IMAGE_KEYS)}{_found(pictures)}"
        return
    for key, value in pictures.items():
        if key not in IMAGE_KEYS:
            yield _unknown(key, IMAGE_KEYS, "pictures")
        elif key == "count" and not (_is_whole(value) and value >= 1):
            yield f"pictures, count: should be a whole number of at least 1{_found(value)}"
        elif key == "seed" and not is_seed(value):
            yield f"pictures, seed: {RULE}{_found(value)}"
        elif key in ("suite", "prompts") and not _are_texts(_listed_or_none(value, key)):
            yield f"pictures, {key}: should be text or a list of texts{_found(value)}"


def _grid_faults(grid: Any, average_over: Any) -> Iterator[str]:
    if grid is not None and not isinstance(grid, Mapping):
        yield f"grid: should be a mapping of axes{_found(grid)}"
        return
    cells = 1
    for name, points in (grid or {}).items():
        if not isinstance(points, list | Mapping) or not points:
            yield f"grid, {name}: should be a list of values or a mapping of labels, and not empty"
            continue
        cells *= len(points)
        yield from _axis_faults(name, points)
    if cells > MAX_CELLS:
        yield f"grid: makes {cells:,} cells; {MAX_CELLS:,} are the most"
    if average_over is not None and not _are_texts(average_over):
        yield f"average_over: should be a list of axes{_found(average_over)}"
    else:
        for name in average_over or ():
            if name not in (grid or {}):
                yield f"average_over: {printable(name)} is not an axis of the grid"


def _axis_faults(name: str, points: Any) -> Iterator[str]:
    if isinstance(points, Mapping):
        for label, bundle in points.items():
            if bundle is not None and not isinstance(bundle, Mapping):
                yield f"grid, {name}, {label}: should be a mapping of what it sets{_found(bundle)}"
            else:
                yield from _bundle_faults(f"grid, {name}, {label}", bundle or {}, CELL_KEYS)
        return
    for value in points:
        yield from _bundle_faults("grid", {name: value}, CELL_KEYS)
    labels = [shown(value) for value in points]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"grid, {name}: {printable(label)} is given twice"


def _bundle_faults(place: str, bundle: Bundle, allowed: tuple[str, ...]) -> Iterator[str]:
    """Faults of what a cell, an axis' label or one run of a sequence sets."""
    known = known_keys()
    for key, value in bundle.items():
        where = f"{place}, {key}" if place else key
        if key in allowed:
            yield from _value_faults(where, key, value)
        elif key.startswith("$"):
            if not isinstance(value, str):
                yield f"{where}: should be text{_found(value)}"
        elif key not in known:
            yield _unknown(key, (*allowed, *known), place)


def _value_faults(where: str, key: str, value: Any) -> Iterator[str]:
    if key == "runs":
        yield from _runs_faults(where, value)
    elif key == "settings":
        yield from _settings_faults(where, value)
    elif key in ("allow_collision", "rehearsal"):
        if not isinstance(value, bool):
            yield f"{where}: should be true or false{_found(value)}"
    elif key == "from":
        if value != "previous":
            yield f"{where}: should be 'previous', the run before it{_found(value)}"
    elif not _names(key, value):
        yield f"{where}: should be {_SHOULD_BE.get(key, 'text')}{_found(value)}"


_SHOULD_BE = {
    "subject": "a subject's name, or a list of names that learn together",
    "identifier": "a word, or a word for each subject",
}


def _names(key: str, value: Any) -> bool:
    """Whether a value names what its key wants: text, or what `_SHOULD_BE` says."""
    if key == "identifier" and isinstance(value, Mapping):
        return bool(value) and _are_texts(list(value.values()))
    if key == "subject" and isinstance(value, list):
        return bool(value) and _are_texts(value)
    return isinstance(value, str) and bool(value.strip())


def _runs_faults(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, list) or not value or not all(isinstance(stage, Mapping) for stage in value):
        yield f"{where}: should be a list of runs, each a mapping{_found(value)}"
        return
    for number, stage in enumerate(value, start=1):
        yield from _bundle_faults(f"{where}, run {number}", stage, STAGE_KEYS)
        if number == 1 and "from" in stage:
            yield f"{where}, run 1, from: there is no run before it"


def _settings_faults(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{where}: should be a mapping of settings{_found(value)}"
        return
    known = known_keys()
    for key in flattened(value):
        if key not in known:
            yield _unknown(key, tuple(known), where)


def _found(value: Any) -> str:
    return f" (found {printable(repr(value), 60)})"


def _unknown(key: str, known: tuple[str, ...], place: str = "") -> str:
    leaves = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    near = near or [leaves[leaf] for leaf in difflib.get_close_matches(key, list(leaves), n=1)]
    text = f"{place + ', ' if place else ''}{printable(key)}: is not a known key"
    return text + (f"; did you mean {near[0]}?" if near else "")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed_or_none(value: Any, key: str) -> Any:
    return [value] if isinstance(value, str) and key == "suite" else value


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
