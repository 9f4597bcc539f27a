"""Prompts put into a run's words, and the slips that can be told from the words alone."""

import difflib
from collections.abc import Sequence

from dbcli.errors import PromptError, UsageError
from dbcli.hints import quoted_prompt
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import render_with, subject_fields
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.subjects.known_runs import known_names, listed, names_of, runs_knowing
from dbcli.project.subjects.renaming import in_words_of
from dbcli.project.subjects.subject_store import list_subjects
from dbcli.workflows.images.generated import words_of
from dbcli.workflows.progress import Progress

# Alone none of these is a prompt: a sentence without quotes came as its words.
_FUNCTION_WORDS = frozenset(
    ["a", "an", "and", "at", "by", "for", "from", "in", "is", "my", "of", "on", "the", "to", "with"]
)


def check_quotes(prompts: Sequence[str], progress: Progress) -> None:
    """Raises UsageError where several prompts are the words of one sentence that was typed without quotes.

    Several prompts of one word each, which may be meant, are a warning.
    """
    words = [prompt.strip() for prompt in prompts]
    if len(words) < 2:
        return
    if not any(word.casefold() in _FUNCTION_WORDS for word in words):
        if not any(" " in word for word in words):
            progress.warn(f"{len(words)} prompts of one word each; one prompt of several words needs quotes.")
        return
    raise UsageError(
        f"These are {len(words)} prompts, and '{next(w for w in words if w.casefold() in _FUNCTION_WORDS)}' is one of "
        "them: a prompt of several words needs quotes.",
        hint=f"dreambooth generate {quoted_prompt(' '.join(words))}",
    )


def rendered(layout: Layout, record: RunRecord | None, prompts: Sequence[str]) -> list[str]:
    """Prompts in the words of a run; a subject that was renamed since answers to its new name too.

    Raises PromptError for a name that no subject has, with the nearest one, or that this run never learnt, with the
    runs that did.
    """
    words = words_of(record)
    named = [name for name in subject_fields(prompts) if name not in words]
    check_subjects(layout, named, prompts)
    texts = list(prompts)
    for name in named:
        former = next((one for one in words if one in names_of(layout, name)), None)
        if former is None:
            raise _never_learnt(layout, record, name, prompts)
        texts = [in_words_of(text, name, former) or text for text in texts]
    return [render_with(text, words) for text in texts]


def check_subjects(
    layout: Layout, names: Sequence[str], prompts: Sequence[str], runs: Sequence[RunRecord] | None = None
) -> None:
    """Raises PromptError for a name in braces that neither the project nor any of its runs knows."""
    here = {name for subject in list_subjects(layout) for name in subject.names} if names else set()
    for name in names:
        if name in here:
            continue
        known = known_names(layout, runs)
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        listing = ", ".join(f"{{{one}}}" for one in known) or "none yet"
        said = f"The prompt says {{{printable(name)}}}, and there is no such subject here; known: {listing}."
        if not near:
            raise PromptError(said, hint="dreambooth subjects list")
        prompt = next(one for one in prompts if f"{{{name}}}" in one).replace(f"{{{name}}}", f"{{{near[0]}}}")
        raise PromptError(f"{said} Did you mean {{{near[0]}}}?", hint=f"dreambooth generate {quoted_prompt(prompt)}")


def _never_learnt(layout: Layout, record: RunRecord | None, name: str, prompts: Sequence[str]) -> PromptError:
    who = "The bare base" if record is None else f"The run {record.name}"
    knowing = runs_knowing(layout, name)
    if not knowing:
        return PromptError(
            f"{who} never learnt '{name}', and no other run did.", hint=f"dreambooth train --subject {name}"
        )
    return PromptError(
        f"{who} never learnt '{name}'; {listed(knowing)} did.",
        hint=f"dreambooth generate {quoted_prompt(prompts[0])} --run {knowing[0].name}",
    )
