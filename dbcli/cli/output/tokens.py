"""Identifiers in words and tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.output.numbers import number
from dbcli.cli.output.subjects import NO_SUBJECTS
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.workflows.subjects.identifiers import Holder, Proposal, Verdict

STRENGTH_NOTE = "Strength: how far the word alone moves the base, relative to the class noun. Weak is good."


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
        Column("in the image", drop=1, right=True),
    )
    screen.table(None, columns, rows)
    screen.prose(STRENGTH_NOTE)


def show_verdict(screen: Screen, verdict: Verdict) -> None:
    """One word: tokens, strength, owner, clashes."""
    one = verdict.proposal
    screen.document(asdict(verdict) | {"strength": one.together})
    rows = [
        ("tokens", " ".join(map(str, one.tokens))),
        ("rarity", f"{verdict.rarity:.0%} of the vocabulary is more common than its most common token"),
        ("strength", f"{_share(one.together)} (text {_share(one.text)}, image {_share(one.picture)})"),
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
            number(one.rarity, ".0%"),
            _share(one.strength),
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


def _share(value: float | None) -> str:
    return number(value, ".2f")
