"""Subjects and their identifiers in words and tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column, number
from dbcli.counts import counted

if TYPE_CHECKING:
    from dbcli.project.subjects.subject_store import AddedSubject
    from dbcli.workflows.subjects.identifiers import Holder, Proposal, Verdict
    from dbcli.workflows.subjects.manage import Entry
    from dbcli.workflows.subjects.photo_review import PhotoReview

STRENGTH_NOTE = "Strength: how much the word alone changes the output, relative to the class noun. Weaker is better."
NO_SUBJECTS = "No subjects yet. Next: dreambooth add-subject"
SUBJECT_COLUMNS = (
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
    screen.table(None, SUBJECT_COLUMNS, rows, empty=NO_SUBJECTS)
    screen.warn(*damaged)


def added_document(added: AddedSubject, advice: Sequence[str], review: PhotoReview) -> dict[str, object]:
    """A subject that was just added, and what was seen of its photos, as JSON."""
    return {
        "subject": added.subject.to_plain(),
        "skipped": [{"path": one.path, "reason": one.reason, "stray": one.stray} for one in added.skipped],
        "notes": added.notes,
        "advice": list(advice),
        "faults": [asdict(fault) for fault in review.faults],
        "contact_sheet": review.sheet,
    }


def show_added(
    screen: Screen, added: AddedSubject, advice: Sequence[str], review: PhotoReview, next_command: str
) -> None:
    """A subject that was just added, in words: what was kept, left out and changed, and the faults of its photos."""
    screen.warn(*added.left_out)
    strays = sum(one.stray for one in added.skipped)
    if strays:
        screen.note(f"Ignored {counted(strays, 'other file')}.")
    screen.note(*added.notes)
    screen.warn(*advice)
    subject = added.subject
    screen.line(f"Subject {subject.name}: {counted(len(subject.photos), 'photo')} of a {subject.class_noun}")
    for fault in review.faults:
        screen.warn(fault.text)
    screen.line(f"Crops: {review.sheet}")
    if not review.faults:
        photos = counted(review.looked_at, "photo")
        screen.note(f"No fault found in {photos}. Is the subject whole, and alone, in every crop?")
    screen.next(next_command)


def show_proposals(screen: Screen, proposals: Sequence[Proposal]) -> None:
    """Proposed words, the weakest first."""
    screen.document({"words": [asdict(one) | {"strength": one.together} for one in proposals]})
    rows = [(one.word, " ".join(map(str, one.tokens)), *_strengths(one)) for one in proposals]
    columns = (
        "word",
        Column("tokens", drop=2),
        Column("strength", right=True),
        Column("in the text", drop=1, right=True),
        Column("in the image", drop=1, right=True),
    )
    screen.table(None, columns, rows)
    screen.prose(STRENGTH_NOTE)


def show_verdict(screen: Screen, verdict: Verdict) -> None:
    """One word: tokens, strength, owner, clashes."""
    one = verdict.proposal
    together, in_text, in_image = _strengths(one)
    screen.document(asdict(verdict) | {"strength": one.together})
    rows = [
        ("tokens", " ".join(map(str, one.tokens))),
        ("rarity", f"{verdict.rarity:.0%} of the vocabulary is more common than its most common token"),
        ("strength", f"{together} (text {in_text}, image {in_image})"),
        ("stands for", verdict.owner or "nobody yet"),
        ("means", verdict.meaning),
        ("against it", verdict.clash or "nothing"),
    ]
    screen.facts(one.word, rows)
    screen.prose(STRENGTH_NOTE)


def show_holders(screen: Screen, holders: Sequence[Holder]) -> None:
    """Subjects and their words."""
    screen.document({"identifiers": [asdict(one) for one in holders]})
    rows = [
        (
            one.identifier or "none yet",
            one.subject,
            one.class_noun,
            " ".join(map(str, one.tokens)),
            number(one.rarity, ".0%"),
            number(one.strength, ".2f"),
            ", ".join(one.runs),
        )
        for one in holders
    ]
    columns = (
        Column("word", least=12),
        Column("subject", least=12),
        Column("class", least=8, wraps=True),
        Column("tokens", drop=4),
        Column("rarity", drop=3, right=True),
        Column("strength", drop=1, right=True),
        Column("learnt in", drop=2, least=12, wraps=True),
    )
    screen.table(None, columns, rows, empty=NO_SUBJECTS)
    for one in holders:
        if one.clash:
            screen.warn(f"{one.identifier}: {one.clash}")


def _strengths(one: Proposal) -> tuple[str, ...]:
    """In all, in the text and in the image."""
    return tuple(number(value, ".2f") for value in (one.together, one.text, one.picture))
