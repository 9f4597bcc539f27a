"""What commands ask a person for when it was left out, with proposals from the project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from dbcli.cli.invocation import Invocation
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.project.layout import Layout

# The word of the source study: rare in captions, one token.
PROPOSED_TOKEN = "sks"


def chosen_profile(call: Invocation, base: str, gpu: bool | None) -> str | None:
    """The profile a new project begins with: proposed by base and machine, and confirmed by a person on a terminal.

    None, for the usual one of base and method, where neither a person nor an option says anything of the machine.
    """
    from dbcli.workflows.proposals import proposed_profile, seen_gpu

    if gpu is None and not (call.may_ask or call.yes):
        return None
    seen = seen_gpu()
    found = f"found: {seen.name}" if seen else "none was found"
    if gpu is None:
        gpu = seen is not None
        if call.may_ask and base != "tiny":
            gpu = typer.confirm(f"Train on a GPU of this machine ({found})", default=gpu, err=True)
    proposal = proposed_profile(base, has_gpu=gpu, memory_mib=seen.memory_mib if seen else None)
    call.screen.note(f"Profile {proposal.profile}: {proposal.reason}.")
    if not call.may_ask:
        return str(proposal.profile)
    return call.wanted(None, "--profile", "Which profile", lambda: proposal.profile)


def check_start(start_from: str | None, no_rehearsal: bool, resume: str | None) -> None:
    """Raises UsageError for ways to begin that exclude each other."""
    if start_from is not None and resume is not None:
        raise UsageError(
            "--resume goes on with an unfinished run, --from begins a new one from a finished run; only one is meant.",
            hint="leave one of them out",
        )
    if no_rehearsal and start_from is None:
        raise UsageError("--no-rehearsal is about --from, which is missing.", hint="add --from RUN")


def subject_and_token(
    call: Invocation, layout: Layout, names: Sequence[str], token: str | None, start_from: str | None = None
) -> tuple[list[str], str | None]:
    """The subjects to train and, for a single one without an identifier, its word; none means those of `start_from`."""
    if start_from is not None and not names and token is None:
        return [], None
    from dbcli.workflows.subjects import known_subjects

    known = {subject.name: subject for subject in known_subjects(layout)}
    first = next(iter(known), None)
    chosen = list(names) or [call.wanted(None, "--subject", "Which subject", lambda: first)]
    only = known.get(chosen[0]) if len(chosen) == 1 else None
    if token is None and only is not None and not only.identifier:
        token = call.wanted(None, "--token", f"Which rare word stands for {only.name}", lambda: PROPOSED_TOKEN)
    return chosen, token
