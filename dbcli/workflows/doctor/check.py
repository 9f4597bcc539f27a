"""What one check of the doctor says: a verdict, what was found, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "note", "fault"]


@dataclass(frozen=True)
class Check:
    """One check: good needs nothing, a note limits what can be done, a fault stops something from working."""

    part: Literal["machine", "project"]
    name: str
    verdict: Verdict
    found: str
    fix: str | None = None


def good(part: Literal["machine", "project"], name: str, found: str) -> Check:
    return Check(part, name, "good", found)


def note(part: Literal["machine", "project"], name: str, found: str, fix: str | None = None) -> Check:
    return Check(part, name, "note", found, fix)


def fault(part: Literal["machine", "project"], name: str, found: str, fix: str) -> Check:
    return Check(part, name, "fault", found, fix)
