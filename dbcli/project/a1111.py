"""AUTOMATIC1111's `parameters` text, read back: what a picture of another program was drawn with.

The text is the prompt's lines, then lines that begin with "Negative prompt:", then one line of `Key: value` fields
divided by commas, where a value that holds a comma stands in quotes as JSON writes them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dbcli.project.recipes import SAMPLER_TITLES

NEGATIVE = "Negative prompt:"
# A last line with fewer fields is a line of the prompt that happens to hold a colon.
LEAST_FIELDS = 3
# The text comes from strangers, and searching for fields takes the square of the line's length.
MAX_LINE = 10_000
_FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

# Titles of AUTOMATIC1111 for what this program can draw with, beside those that it writes itself.
_OTHER_TITLES = {
    "DPM++ 2M SDE": "dpm++-sde",
    "DPM-Solver++": "dpm++",
    "PNDM": "pndm",
    "DPM++ 2M SDE Karras": "dpm++-sde",
}


Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Parameters:
    """What the text says, None where it says nothing of it; `unread` holds a line for each value that is none."""

    prompt: str
    negative: str
    values: dict[str, str] = field(default_factory=dict)
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    eta: float | None = None
    size_px: tuple[int, int] | None = None
    sampler: str | None = None
    unread: tuple[str, ...] = ()


def read_parameters(text: str) -> Parameters:
    """Return what a `parameters` text says; any text is one, at worst a prompt alone."""
    lines, last = _divided(text)
    prompt, negative = _prompts(lines)
    values = {key.strip(): _unquoted(value) for key, value in _FIELD.findall(last)}
    unread: list[str] = []
    return Parameters(
        prompt,
        negative,
        values,
        steps=_number(values, ("Steps",), int, unread),
        guidance=_number(values, ("CFG scale",), float, unread),
        seed=_number(values, ("Seed",), int, unread),
        eta=_number(values, ("Eta", "Eta DDIM"), float, unread),
        size_px=_size(values, unread),
        sampler=_sampler(values, unread),
        unread=tuple(unread),
    )


def _divided(text: str) -> tuple[list[str], str]:
    """The lines of both prompts, and the line of fields, empty where there is none."""
    *lines, last = text.strip().split("\n")
    if len(_FIELD.findall(last[:MAX_LINE])) < LEAST_FIELDS:
        return [*lines, last], ""
    return lines, last[:MAX_LINE]


def _prompts(lines: list[str]) -> tuple[str, str]:
    parts: tuple[list[str], list[str]] = ([], [])
    is_negative = False
    for line in (line.strip() for line in lines):
        if line.startswith(NEGATIVE):
            is_negative, line = True, line[len(NEGATIVE) :].strip()
        parts[is_negative].append(line)
    return "\n".join(parts[0]), "\n".join(parts[1])


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _number(
    values: Mapping[str, str], keys: tuple[str, ...], kind: Callable[[str], Number], unread: list[str]
) -> Number | None:
    text = next((values[key] for key in keys if key in values), None)
    if text is None:
        return None
    try:
        number = kind(text)
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    unread.append(f"{keys[0]}: {text[:40]}")
    return None


def _size(values: Mapping[str, str], unread: list[str]) -> tuple[int, int] | None:
    text = values.get("Size")
    found = _SIZE.fullmatch(text) if text is not None else None
    if text is not None and found is None:
        unread.append(f"Size: {text[:40]}")
    return None if found is None else (int(found[1]), int(found[2]))


def _sampler(values: Mapping[str, str], unread: list[str]) -> str | None:
    """Our name of a sampler. Since version 1.9 the noise schedule has a field of its own."""
    title = values.get("Sampler")
    if title is None:
        return None
    names = {shown.casefold(): name for name, shown in SAMPLER_TITLES.items()}
    names |= {shown.casefold(): name for shown, name in _OTHER_TITLES.items()} | {name: name for name in SAMPLER_TITLES}
    schedule = values.get("Schedule type", "")
    with_schedule = f"{title} {schedule}".strip() if schedule.casefold() == "karras" else title
    found = names.get(with_schedule.casefold()) or names.get(title.casefold())
    if found is None:
        unread.append(f"Sampler: {title[:40]}")
    return found
