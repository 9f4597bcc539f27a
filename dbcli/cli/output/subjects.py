"""Subjects in words and tables, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.output.numbers import counted
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.project.subjects.subject_store import AddedSubject
    from dbcli.workflows.subjects.manage import Entry
    from dbcli.workflows.subjects.photo_review import PhotoReview

NO_SUBJECTS = "No subjects yet. Next: dreambooth add-subject"
COLUMNS = (
    Column("subject", least=12),
    Column("words", least=8, wraps=True),
    Column("photos", right=True, drop=2),
    Column("learnt in", drop=1, least=12, wraps=True),
    Column("formerly", drop=3, least=12, wraps=True),
)


def show_subjects(screen: Screen, entries: Sequence[Entry], damaged: Sequence[str]) -> None:
    """Subjects with their words, photos and runs."""
    documents = [one.subject.to_plain() | {"runs": one.runs} for one in entries]
    screen.document({"subjects": documents, "damaged": list(damaged)})
    rows = [
        (
            one.subject.name,
            f"{one.subject.identifier or '?'} {one.subject.class_noun}",
            len(one.subject.photos),
            ", ".join(one.runs),
            ", ".join(one.subject.formerly),
        )
        for one in entries
    ]
    screen.table(None, COLUMNS, rows, empty=NO_SUBJECTS)
    for line in damaged:
        screen.warn(line)


def added_document(added: AddedSubject, advice: Sequence[str], review: PhotoReview) -> dict[str, object]:
    """A subject that was just added, and what was seen of its photos, as JSON."""
    return {
        "subject": added.subject.to_plain(),
        "skipped": [{"path": str(one.path), "reason": one.reason, "stray": one.stray} for one in added.skipped],
        "notes": added.notes,
        "advice": list(advice),
        "faults": [asdict(fault) for fault in review.faults],
        "contact_sheet": str(review.sheet),
    }


def show_added(
    screen: Screen, added: AddedSubject, advice: Sequence[str], review: PhotoReview, next_command: str
) -> None:
    """A subject that was just added, in words: what was kept, left out and changed, and the faults of its photos."""
    for line in added.left_out:
        screen.warn(line)
    strays = sum(one.stray for one in added.skipped)
    if strays:
        screen.note(f"Ignored {counted(strays, 'other file')}.")
    for note in added.notes:
        screen.note(note)
    for line in advice:
        screen.warn(line)
    subject = added.subject
    screen.line(f"Subject {subject.name}: {counted(len(subject.photos), 'photo')} of a {subject.class_noun}")
    for fault in review.faults:
        screen.warn(fault.text)
    screen.line(f"Crops: {review.sheet}")
    if not review.faults:
        screen.note(f"No fault found in {review.looked_at} photos. Is the subject whole, and alone, in every crop?")
    screen.next(next_command)
