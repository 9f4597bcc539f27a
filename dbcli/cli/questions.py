"""What commands ask a person for when it was left out, with proposals from the project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.cli.invocation import Invocation

if TYPE_CHECKING:
    from dbcli.project.layout import Layout

# The word of the source study: rare in captions, one token.
PROPOSED_TOKEN = "sks"


def subject_and_token(
    call: Invocation, layout: Layout, names: Sequence[str], token: str | None
) -> tuple[list[str], str | None]:
    """The subjects to train and, for a single one without an identifier, its word."""
    from dbcli.workflows.subjects import known_subjects

    known = {subject.name: subject for subject in known_subjects(layout)}
    first = next(iter(known), None)
    chosen = list(names) or [call.wanted(None, "--subject", "Which subject", lambda: first)]
    only = known.get(chosen[0]) if len(chosen) == 1 else None
    if token is None and only is not None and not only.identifier:
        token = call.wanted(None, "--token", f"Which rare word stands for {only.name}", lambda: PROPOSED_TOKEN)
    return chosen, token
