"""What a measurement of interference left beside a run, read back without anything heavy."""

from __future__ import annotations

from typing import Any

from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.files.records import json_or_nothing

SUITE_NAME, FILE_NAME = "interference", "interference.json"


def bleeding(layout: Layout, run: str) -> list[str]:
    """One line for every subject of a run whose pictures went to another subject when it was last measured.

    A file that is not there or cannot be read says nothing.
    """
    try:
        return bleeding_lines(json_or_nothing(layout.eval_dir(run, SUITE_NAME) / FILE_NAME).get("nearest"))
    except (KeyError, TypeError):
        return []


def bleeding_lines(nearest: dict[str, Any] | None) -> list[str]:
    """The same of a report's part `nearest`, None where there was one subject.

    Raises KeyError or TypeError for what is no such part.
    """
    if nearest is None:
        return []
    return [_line(name, nearest["subjects"][name], nearest["least_share"]) for name in nearest["bleeding"]]


def _line(name: str, found: dict[str, Any], least_share: float) -> str:
    wrong = {other: count for other, count in found["nearest"].items() if other != name and count}
    into = max(wrong, key=lambda other: wrong[other], default="another")
    return (
        f"{printable(name)} bleeds: {found['right']['value']:.0%} of its {found['pictures']} images are nearest to "
        f"its own photos (at least {least_share:.0%} should be), most of the others to those of {printable(into)}."
    )
