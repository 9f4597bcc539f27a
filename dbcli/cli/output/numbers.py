"""Numbers as listings write them."""

from __future__ import annotations

from collections.abc import Mapping


def counted(count: int, noun: str) -> str:
    """ "1 image", "3 images"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def number(value: float | None, form: str = ".3f", missing: str = "") -> str:
    """A value in a format of its own, `missing` where it was not measured."""
    return missing if value is None else f"{value:{form}}"


def with_interval(found: Mapping[str, float | None], form: str = ".3f") -> tuple[str, str]:
    """A score and its interval, "0.830" and "0.811 to 0.849"; the interval is empty where none is known."""
    low, high = found.get("low"), found.get("high")
    interval = "" if low is None or high is None else f"{low:{form}} to {high:{form}}"
    return number(found.get("value"), form), interval
