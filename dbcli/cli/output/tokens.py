"""Identifiers and subjects in words and tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.workflows.subjects.identifiers import Holder, Proposal, Verdict
    from dbcli.workflows.subjects.manage import Entry

STRENGTH_NOTE = "Strength: how far the word alone moves the base, as a share of what the class noun does. Weak is good."


def show_proposals(screen: Screen, proposals: Sequence[Proposal]) -> None:
    """Proposed words, the weakest first."""
    screen.document({"words": [asdict(one) | {"strength": one.together} for one in proposals]})
    rows = [
        (one.word, " ".join(map(str, one.tokens)), _share(one.together), _share(one.text), _share(one.picture))
        for one in proposals
    ]
    columns = (
        "word",
        Column("tokens", drop=2),
        Column("strength", right=True),
        Column("in the text", drop=1, right=True),
        Column("in the picture", drop=1, right=True),
    )
    screen.table(None, columns, rows)
    screen.prose(STRENGTH_NOTE)


def show_verdict(screen: Screen, verdict: Verdict) -> None:
    """One word: tokens, strength, owner, clashes."""
    one = verdict.proposal
    screen.document(asdict(verdict) | {"strength": one.together})
    rows = [
        ("tokens", " ".join(map(str, one.tokens))),
        ("rarity", f"{verdict.rarity:.0%} of the vocabulary is commoner than its commonest token"),
        ("strength", f"{_share(one.together)} (text {_share(one.text)}, picture {_share(one.picture)})"),
        ("stands for", verdict.owner or "nobody yet"),
        ("means", verdict.meaning),
        ("against it", verdict.clash or "nothing"),
    ]
    screen.table(one.word, ("", Column("", wraps=True, least=16)), [row for row in rows if row[1]])
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
            "" if one.rarity is None else f"{one.rarity:.0%}",
            _share(one.strength),
            ", ".join(one.runs),
        )
        for one in holders
    ]
    if rows:
        columns = (
            Column("word", least=12),
            Column("subject", least=12),
            Column("class", least=8, wraps=True),
            Column("tokens", drop=4),
            Column("rarity", drop=3, right=True),
            Column("strength", drop=1, right=True),
            Column("learnt in", drop=2, least=12, wraps=True),
        )
        screen.table(None, columns, rows)
    else:
        screen.line("No subjects yet. Next: dreambooth add-subject")
    for one in holders:
        if one.clash:
            screen.warn(f"{one.identifier}: {one.clash}")


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
    if rows:
        columns = (
            Column("subject", least=12),
            Column("words", least=8, wraps=True),
            Column("photos", right=True, drop=2),
            Column("learnt in", drop=1, least=12, wraps=True),
            Column("formerly", drop=3, least=12, wraps=True),
        )
        screen.table(None, columns, rows)
    else:
        screen.line("No subjects yet. Next: dreambooth add-subject")
    for line in damaged:
        screen.warn(line)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
