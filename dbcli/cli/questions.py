"""What commands ask a person for when it was left out, with proposals from the project."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import typer

from dbcli.cli.invocation import Invocation
from dbcli.errors import UsageError
from dbcli.hints import nearest

if TYPE_CHECKING:
    from dbcli.project.layout import Layout
    from dbcli.project.subjects import Subject


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


def subjects_and_identifiers(
    call: Invocation,
    layout: Layout,
    names: Sequence[str],
    tokens: Sequence[str],
    start_from: str | None = None,
    *,
    allow_collision: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """The subjects to train and the identifiers that they are given; none means the subjects of `start_from`.

    On a terminal every missing identifier is asked for, with the word that is proposed everywhere else too.
    """
    if start_from is not None and not names and not tokens:
        return [], {}
    from dbcli.workflows.subjects import identifiers_of, known_subjects, missing_identifiers

    known = {subject.name: subject for subject in known_subjects(layout)}
    untaught = [name for name, one in known.items() if one.identifier is None]
    first = next(iter([*untaught, *known]), None)
    question = f"Which subject ({', '.join(known)})"
    chosen = list(names) or [call.wanted(None, "--subject", question, lambda: first, check=among(known, "subject"))]
    identifiers = identifiers_of(layout, chosen, tokens)
    missing = [known[name] for name in chosen if name in untaught and name not in identifiers]
    if not missing or not (call.may_ask or call.yes):
        return chosen, identifiers

    def ask(subject: Subject, proposal: str, check: Callable[[str], object]) -> str:
        text = f"Which rare word is the identifier of {subject.name}"
        return call.wanted(None, "--token", text, lambda: proposal, check=check)

    return chosen, missing_identifiers(layout, missing, ask, identifiers, allow_collision=allow_collision)


def among(known: Collection[str], what: str) -> Callable[[str], object]:
    """A check that an answer is one of several names; what it raises says which one was most likely meant."""

    def check(answer: str) -> None:
        if answer not in known:
            guess = nearest(answer, known)
            near = f" Did you mean {guess}?" if guess else ""
            raise UsageError(f"There is no {what} '{answer}'.{near}", hint=f"one of {', '.join(known)}")

    return check
