"""What commands ask a person for when it was left out, with suggestions from the project."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.cli.interactive.dropped_paths import dropped_path
from dbcli.cli.invocation import Invocation
from dbcli.errors import UsageError
from dbcli.hints import nearest

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.project.subjects.subject_record import Subject
    from dbcli.workflows.training.request import TrainRequest


def chosen_folder(call: Invocation, given: Path | None) -> Path:
    """The folder of a new project; one that cannot be is refused at once."""
    from dbcli.workflows.setup.open import check_project_folder

    def check(answer: str) -> None:
        check_project_folder(dropped_path(answer))

    return given or dropped_path(call.wanted(None, "DIR", "Which folder, new or empty", check=check))


def chosen_base(call: Invocation, gpu: bool | None) -> str:
    """The base of a new project: asked for with what there is to choose from, or the usual one."""
    from dbcli.workflows.completions import BASES
    from dbcli.workflows.setup.open import check_base, proposed_base
    from dbcli.workflows.setup.suggested_profile import seen_gpu

    if not (call.may_ask or call.yes):
        return proposed_base()
    has_gpu = seen_gpu() is not None if gpu is None else gpu
    if call.may_ask:
        call.screen.note(
            "  tiny      embedded, 128 px images: minutes on any machine, to try everything",
            "  sd-v1-4   Stable Diffusion, 512 px, a 4 GB download: best with a GPU; sd-v1-5 likewise",
            "  or a Hub id like owner/name, a diffusers folder, a .safetensors or .ckpt file",
        )

    def check(answer: str) -> None:
        # The short names need no check, which takes seconds.
        if answer not in BASES:
            check_base(_base_of(answer), offline=call.offline)

    return _base_of(call.wanted(None, "--base", "Which base", lambda: proposed_base(has_gpu=has_gpu), check=check))


def _base_of(answer: str) -> str:
    path = dropped_path(answer)
    return str(path) if path.exists() else answer


def chosen_profile(call: Invocation, base: str, gpu: bool | None) -> str | None:
    """The profile of a new project that suits base and machine, without asking.

    None, for the default of base and method, where neither a person nor an option says anything of the machine.
    """
    from dbcli.workflows.setup.suggested_profile import proposed_profile, seen_gpu

    if gpu is None and not (call.may_ask or call.yes):
        return None
    seen = seen_gpu()
    has_gpu = seen is not None if gpu is None else gpu
    proposal = proposed_profile(base, has_gpu=has_gpu, memory_mib=seen.memory_mib if seen else None)
    if proposal.profile != "tiny" and gpu is None:
        no_gpu = "This machine has no GPU; add --gpu to train on another machine that has one."
        call.screen.note(f"GPU of this machine: {seen.name}" if seen else no_gpu)
    call.screen.note(f"Profile {proposal.profile}: {proposal.reason}. --profile chooses another.")
    return proposal.profile


def check_start(start_from: str | None, no_rehearsal: bool, resume: str | None) -> None:
    """Raises UsageError for ways to begin that exclude each other."""
    if start_from is not None and resume is not None:
        raise UsageError(
            "--resume continues an unfinished run, --from starts a new one from a finished run; give one of them.",
            hint="leave one of them out",
        )
    if no_rehearsal and start_from is None:
        raise UsageError("--no-rehearsal needs --from.", hint="add --from RUN")


def with_answers(call: Invocation, layout: Layout, request: TrainRequest) -> TrainRequest:
    """The request with the subjects to train and their identifiers; none means the subjects of `start_from`.

    On a terminal every missing identifier is asked for, with the word that is proposed everywhere else too.
    """
    names, tokens = request.subjects, request.tokens
    if request.start_from is not None and not names and not tokens:
        return request
    from dbcli.workflows.subjects.manage import identifiers_of, list_subjects, missing_identifiers

    known = {subject.name: subject for subject in list_subjects(layout)}
    untaught = [name for name, one in known.items() if one.identifier is None]
    first = next(iter([*untaught, *known]), None)
    chosen = list(names) or (list(known) if len(known) == 1 and call.may_ask else [])
    if not chosen and not known:
        raise UsageError("There is no subject to train yet.", hint="dreambooth add-subject")
    if not chosen:
        question = f"Which subject ({', '.join(known)})"
        chosen = [call.wanted(None, "--subject", question, lambda: first, check=partial(_check_subject, known))]
    identifiers = identifiers_of(layout, chosen, tokens)
    missing = [known[name] for name in chosen if name in untaught and name not in identifiers]
    if not missing or not (call.may_ask or call.yes):
        return replace(request, subjects=chosen)

    def ask(subject: Subject, proposal: str, check: Callable[[str], object]) -> str:
        text = f"Which rare word is the identifier of {subject.name}"
        return call.wanted(None, "--token", text, lambda: proposal, check=check)

    given = missing_identifiers(layout, missing, ask, identifiers, allow_collision=request.allow_collision)
    return replace(request, subjects=chosen, tokens=[f"{name}={word}" for name, word in given.items()])


def _check_subject(known: Collection[str], answer: str) -> None:
    if answer not in known:
        guess = nearest(answer, known)
        near = f" Did you mean {guess}?" if guess else ""
        raise UsageError(f"There is no subject '{answer}'.{near}", hint=f"one of {', '.join(known)}")
