"""What guides a person: the state of the project, what the machine lacks, always with the next command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from dbcli.cli.terminal.screen import Screen, visible
from dbcli.cli.terminal.tables import Column
from dbcli.counts import counted

if TYPE_CHECKING:
    from dbcli.workflows.doctor.check import Check
    from dbcli.workflows.status import ProjectStatus

SHOWN_SUBJECTS = 6
# Verdict of a check -> its mark and the mark's colour.
MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "fault": ("FAIL", "red bold")}
FINDING_COLUMNS = (Column(""), Column(""), Column(""), Column("", wraps=True, least=24))


def show_status(screen: Screen, status: ProjectStatus) -> None:
    """The project at a glance and what to type next."""
    screen.document(_status_document(status))
    if status.project is None:
        screen.line("Teach a text-to-image model a subject, and generate images of it anywhere.", style="bold")
        screen.line("There is no project here yet.")
    else:
        screen.facts(None, _status_rows(status))
    screen.warn(*status.damaged)
    screen.line("")
    for number, step in enumerate(status.next[:3]):
        screen.line(f"{'Next' if number == 0 else 'Or'}: {step.why}", style="bold" if number == 0 else "")
        screen.command(step.command)
    screen.line("")
    screen.line("All commands: dreambooth --help · this machine: dreambooth doctor", style="dim")


def show_checks(screen: Screen, checks: Sequence[Check]) -> int:
    """The doctor's findings; returns the exit code: 0, or 5 for a faulty machine, 3 for a faulty project."""
    faults = [check for check in checks if check.verdict == "fault"]
    notes = sum(check.verdict == "note" for check in checks)
    screen.document({"faults": len(faults), "notes": notes, "checks": [asdict(check) for check in checks]})
    for part in ("machine", "project"):
        own = [check for check in checks if check.part == part]
        if own:
            screen.table(part.capitalize(), FINDING_COLUMNS, [row for check in own for row in _finding_rows(check)])
    words = f"{counted(len(faults), 'fault')}, {counted(notes, 'note')}."
    screen.line("All is well." if not faults and not notes else words, style="bold")
    if any(check.part == "machine" for check in faults):
        return 5
    return 3 if faults else 0


def _finding_rows(check: Check) -> list[tuple[object, ...]]:
    """A mark that reads without colour, what was checked and found, and beneath it the fix."""
    mark, style = MARKS[check.verdict]
    rows: list[tuple[object, ...]] = [("", Text(mark, style=style), check.name, check.found)]
    if check.fix:
        fix = Text(f"→ {visible(check.fix)}", style="dim" if check.verdict == "good" else "")
        rows.append(("", "", "", fix))
    return rows


def _status_rows(status: ProjectStatus) -> list[tuple[str, str]]:
    profile = f", profile {status.profile}" if status.profile else ""
    rows = [("project", f"{status.project}"), ("base", f"{status.base}{profile}")]
    for number, subject in enumerate(status.subjects[:SHOWN_SUBJECTS]):
        word = f", identifier {subject.identifier}" if subject.identifier else ", no identifier yet"
        text = f"{subject.name}: {counted(len(subject.photos), 'photo')} of a {subject.class_noun}{word}"
        rows.append(("subjects" if number == 0 else "", text))
    if len(status.subjects) > SHOWN_SUBJECTS:
        rows.append(("", f"and {len(status.subjects) - SHOWN_SUBJECTS} more"))
    if status.runs:
        last = status.runs[-1]
        steps = "" if last.state == "finished" else f", step {last.step} of {last.total_steps}"
        rows.append(("runs", f"{len(status.runs)}, the newest {last.name} ({last.state}{steps})"))
    if status.newest is not None:
        rows.append(("images", f"{status.images} with {status.newest}"))
        rows.append(("scores", ", ".join(status.suites) or "none yet"))
    return rows


def _status_document(status: ProjectStatus) -> dict[str, object]:
    return {
        "project": status.project,
        "base": status.base,
        "profile": status.profile,
        "subjects": [subject.to_plain() for subject in status.subjects],
        "runs": [{"name": run.name, "state": run.state, "step": run.step} for run in status.runs],
        "newest_finished": status.newest,
        "pictures": status.images,
        "suites": status.suites,
        "training_now": status.training_now,
        "damaged": status.damaged,
        "next": [asdict(step) for step in status.next],
    }
