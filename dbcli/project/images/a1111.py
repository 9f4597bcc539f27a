"""AUTOMATIC1111's `parameters` text, read back: what an image of another program was drawn with.

The text is the prompt's lines, then lines that begin with "Negative prompt:", then one line of `Key: value` fields
divided by commas, where a value that holds a comma or a colon stands in quotes as JSON writes them.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dbcli.project.images.recipes import SAMPLER_TITLES

NEGATIVE = "Negative prompt:"
# The line of fields has these keys, whoever wrote it; a line with fewer than two of them is a line of the prompt that
# happens to hold a colon.
USUAL_KEYS = frozenset({"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model"})
LEAST_USUAL = 2
# The text comes from strangers.
MAX_LINE = 100_000
MAX_KEY = 60

# A field with its comma, or what is none. A quoted value is all of a JSON string, and nothing follows it.
_FIELD = re.compile(
    r"""([^,:]*)  (?: : [ ]*  (?: ("(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")\s*(?=,|\Z)
                                | ([^,]*) ) )?  ,?""",
    re.VERBOSE,
)

# Titles of AUTOMATIC1111 for what this program can draw with, beside those that it writes itself.
_OTHER_TITLES = {
    "DPM-Solver++": "dpm++",
    "PNDM": "pndm",
    "DPM++ 2M SDE Karras": "dpm++-sde",
}

# Fields that are followed, and those that say nothing of how an image is drawn.
_FOLLOWED = frozenset(
    {"Steps", "Sampler", "CFG scale", "Seed", "Size", "Eta", "Eta DDIM", "Clip skip", "Version", "Model", "Model hash"}
    | {"Schedule type"}  # with the sampler
)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Parameters:
    """What the text says, None where it says nothing of it.

    `unread` holds a line for each value that is none, and `ignored` the keys of what this program does not do.
    """

    prompt: str
    negative: str
    values: dict[str, str] = field(default_factory=dict)
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    eta: float | None = None
    size_px: tuple[int, int] | None = None
    sampler: str | None = None
    clip_skip: int | None = None
    unread: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_parameters(text: str) -> Parameters:
    """Return what a `parameters` text says; any text is one, at worst a prompt alone."""
    lines, values = _divided(text)
    prompt, negative = _prompts(lines)
    unread: list[str] = []
    sampler, unscheduled = _sampler(values, unread)
    return Parameters(
        prompt,
        negative,
        values,
        steps=_number(values, ("Steps",), int, unread),
        guidance=_number(values, ("CFG scale",), float, unread),
        seed=_number(values, ("Seed",), int, unread),
        eta=_number(values, ("Eta", "Eta DDIM"), float, unread),
        size_px=_size(values, unread),
        sampler=sampler,
        clip_skip=_number(values, ("Clip skip",), int, unread),
        unread=tuple(unread),
        ignored=(*unscheduled, *(key for key in values if key not in _FOLLOWED)),
    )


def fields_of(line: str) -> Iterator[tuple[str, str]]:
    """The `Key: value` fields of a line in order; what has no key between two commas is passed over."""
    for found in _FIELD.finditer(line):
        key, quoted, plain = found[1].strip(), found[2], found[3]
        if 0 < len(key) <= MAX_KEY and (quoted or plain) is not None:
            yield key, json.loads(quoted) if quoted else plain.strip()


def _divided(text: str) -> tuple[list[str], dict[str, str]]:
    """The lines of both prompts, and the fields, none where no line holds any."""
    *lines, last = text.strip().split("\n")
    # The first of two equal keys counts: extensions repeat keys of the program.
    values: dict[str, str] = {}
    for key, value in fields_of(last[:MAX_LINE]):
        values.setdefault(key, value)
    if len(USUAL_KEYS & values.keys()) < LEAST_USUAL:
        return [*lines, last], {}
    return lines, values


def _prompts(lines: list[str]) -> tuple[str, str]:
    parts: tuple[list[str], list[str]] = ([], [])
    is_negative = False
    for line in (line.strip() for line in lines):
        if line.startswith(NEGATIVE):
            is_negative, line = True, line[len(NEGATIVE) :].strip()
        parts[is_negative].append(line)
    return "\n".join(parts[0]), "\n".join(parts[1])


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
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if found:
        return int(found[1]), int(found[2])
    unread.append(f"Size: {text[:40]}")
    return None


def _sampler(values: Mapping[str, str], unread: list[str]) -> tuple[str | None, list[str]]:
    """Our name of a sampler, and its noise schedule where ours has another; since version 1.9 it has its own field."""
    title, schedule = values.get("Sampler"), values.get("Schedule type", "")
    if title is None:
        return None, []
    names = {shown.casefold(): name for name, shown in SAMPLER_TITLES.items()}
    names |= {shown.casefold(): name for shown, name in _OTHER_TITLES.items()} | {name: name for name in SAMPLER_TITLES}
    found = names.get(f"{title} {schedule}".casefold()) or names.get(title.casefold())
    if found is None:
        unread.append(f"Sampler: {title[:40]}")
        return None, []
    wanted = schedule or ("Karras" if title.casefold().endswith(" karras") else "")
    is_ours = wanted.casefold() in ("", "automatic") or found.endswith(f"-{wanted.casefold()}")
    return found, [] if is_ours else [f"Schedule type {wanted[:40]}"]
