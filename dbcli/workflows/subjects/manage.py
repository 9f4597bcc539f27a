"""Bringing a subject into a project, and giving it the word that will stand for it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dbcli.errors import DreamboothError, LockHeld, PromptError, UsageError
from dbcli.hints import command, nearest
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import is_held
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import check_class_noun, render_with
from dbcli.project.runs.run_store import list_runs
from dbcli.project.subjects.renaming import rename_subject
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import (
    AddedSubject,
    damaged_subjects,
    registry_of,
    remove_subject,
    store_subject,
    store_words,
    verify_words,
    with_identifiers,
)
from dbcli.project.subjects.subject_store import check_new_name as check_new_name
from dbcli.project.subjects.subject_store import list_subjects as list_subjects
from dbcli.project.subjects.subject_store import load_subject as load_subject
from dbcli.project.subjects.subject_store import way_on as way_on
from dbcli.workflows.subjects.identifiers import token_check
from dbcli.workflows.subjects.proposed_words import claims_of, proposed_words

FEW, MANY = 3, 30


def add_subject(
    layout: Layout,
    name: str,
    class_noun: str,
    photos: Sequence[Path],
    token: str | None,
    *,
    allow_collision: bool = False,
) -> tuple[AddedSubject, list[str]]:
    """Adds a subject; the second value is advice on the photos, a line each."""
    check = token_check(layout, allow_collision=allow_collision)
    added = store_subject(layout, name, class_noun, photos, token, tokens=check)
    count = len(added.subject.photos)
    advice = []
    if count < FEW:
        advice.append(f"{count} photo{'s' if count > 1 else ''}: three to six, from several sides, teach more.")
    if count > MANY:
        advice.append(f"{count} photos: a handful of the best usually teaches better than many.")
    return added, advice + _caption_faults(layout, added)


def _caption_faults(layout: Layout, added: AddedSubject) -> list[str]:
    """A line for each caption that names a subject it cannot mean, with the file it came with."""
    subject, lines = added.subject, []
    for entry, name in zip(subject.photos, added.source_names, strict=False):
        try:
            render_with(entry.caption or "", {subject.name: subject.words})
        except PromptError as error:
            beside = layout.shown((layout.photos_dir(subject.name) / entry.file).with_suffix(".txt"))
            lines.append(
                f"The caption of {printable(name)}, '{printable(entry.caption or '', 120)}': {error.message} "
                f"Training refuses it until another is written into {beside}."
            )
    return lines


def check_new_noun(layout: Layout, name: str, class_noun: str) -> None:
    """Raises UsageError or Collision for what cannot be the class noun of a new subject."""
    registry_of(layout).check_noun(Subject(name=name, class_noun=check_class_noun(class_noun)), token_check(layout))


def named_subjects(
    layout: Layout, names: Sequence[str], identifiers: Mapping[str, str], *, allow_collision: bool = False
) -> list[Subject]:
    """The subjects of a run with their identifiers settled; `identifiers` are new ones, by subject, and not stored.

    Raises UsageError where a subject has no identifier and none is given, Collision for a taken one.
    """
    if not names:
        raise UsageError("--subject is missing.", hint="dreambooth subjects list")
    _require_distinct(names)
    check = token_check(layout, allow_collision=allow_collision)
    found = [load_subject(layout, name) for name in names]
    if len({subject.name for subject in found}) < len(found):
        raise UsageError("The same --subject is named twice, by its old name and its new one.")
    without = [one for one in found if one.identifier is None and not {one.name, *one.formerly} & set(identifiers)]
    if without:
        raise UsageError(
            f"No identifier yet: {', '.join(one.name for one in without)}.",
            hint=f"add {token_options(layout, without, identifiers, only=len(found) == 1)}",
        )
    changed = {one.name: one for one in with_identifiers(layout, identifiers, tokens=check)}
    found = [changed.get(one.name, one) for one in found]
    for subject in found:
        # A clash that was allowed once is allowed again, and written into the run, or there is no run.
        verify_words(layout, subject, check, beside=found)
    return found


def identifiers_of(layout: Layout, names: Sequence[str], tokens: Sequence[str]) -> dict[str, str]:
    """The identifiers that `--token` gives to subjects: `wolf=mwf` for one of several, or a word for the only one.

    Raises UsageError for a word that nobody can tell the subject of, or a subject that is not among `names`.
    """
    found: dict[str, str] = {}
    if tokens and not names:
        raise UsageError("--subject is missing.", hint="dreambooth subjects list")
    _require_distinct(names)
    for token in tokens:
        name, has_name, word = token.partition("=")
        if not has_name and len(names) == 1:
            name, word = names[0], token
        elif name not in names or not has_name:
            raise _unclear_token(layout, names, name if has_name else None, token)
        if name in found:
            raise UsageError(f"--token gives {name} two identifiers, {found[name]} and {word}.")
        found[name] = word
    return found


def missing_identifiers(
    layout: Layout,
    subjects: Sequence[Subject],
    ask: Callable[[Subject, str, Callable[[str], object]], str],
    given: Mapping[str, str],
    *,
    allow_collision: bool,
) -> dict[str, str]:
    """The identifiers of subjects that have none, each asked for: `ask(subject, proposal, check)` returns a word.

    The check raises what taking the word would raise; no proposal clashes with a word that was given before.
    """
    check, found = token_check(layout, allow_collision=allow_collision), dict(given)
    for subject in subjects:
        proposal = proposed_words(layout, subject, claims=claims_of(found))[0]

        def accepted(word: str, name: str = subject.name, before: Mapping[str, str] = dict(found)) -> object:
            return with_identifiers(layout, {**before, name: word}, tokens=check)

        found[subject.name] = ask(subject, proposal, accepted)
    return found


def _require_distinct(names: Sequence[str]) -> None:
    once = list(dict.fromkeys(names))
    if len(once) < len(names):
        raise UsageError("The same --subject is named twice.", hint=command("--subject", ",".join(once)))


def _unclear_token(layout: Layout, names: Sequence[str], name: str | None, token: str) -> UsageError:
    if name is None:
        known = {one.name: one for one in list_subjects(layout)}
        without = [known[one] for one in names if one in known and known[one].identifier is None]
        first = without[0].name if without else names[0]
        options = [command("--token", f"{first}={token}")]
        if without and _is_taken(layout, first, token):
            options = [token_options(layout, without, {}, only=False)]
        elif without[1:]:
            options.append(token_options(layout, without[1:], {first: token}, only=False))
        return UsageError(
            f"--token {token} does not say which of {', '.join(names)} it is for.", hint=" ".join(options)
        )
    guess = nearest(name, names)
    return UsageError(
        f"--token {token}: {name} is not one of the subjects to train ({', '.join(names)}).",
        hint=None if guess is None else command("--token", f"{guess}={token.partition('=')[2]}"),
    )


def _is_taken(layout: Layout, name: str, word: str) -> bool:
    try:
        with_identifiers(layout, {name: word}, tokens=token_check(layout, allow_collision=False))
    except DreamboothError:
        return True
    return False


def token_options(layout: Layout, subjects: Sequence[Subject], given: Mapping[str, str], *, only: bool) -> str:
    """`--token` with a proposed word for each subject, as it is typed, beside the identifiers that are given.

    `only`: a run has no other subject, so that the word needs no name.
    """
    words = dict(given)
    for one in subjects:
        words[one.name] = proposed_words(layout, one, claims=claims_of(words))[0]
    options = [words[one.name] if only else f"{one.name}={words[one.name]}" for one in subjects]
    return " ".join(command("--token", option) for option in options)


@dataclass(frozen=True)
class Entry:
    """A subject in a list: its words, how many photos, and the runs that learnt it, under whatever name."""

    subject: Subject
    runs: list[str]


def all_subjects(layout: Layout) -> tuple[list[Entry], list[str]]:
    """Every subject with its runs, and a line for each record that is damaged."""
    runs = list_runs(layout)
    entries = [
        Entry(one, [run.name for run in runs if any(learnt.name in one.names for learnt in run.subjects)])
        for one in list_subjects(layout)
    ]
    return entries, damaged_subjects(layout)


def rename(layout: Layout, old: str, new: str) -> Subject:
    """Gives a subject another name; runs keep the one they learnt. LockHeld while a run is being trained on it."""
    _check_at_rest(layout, old)
    return rename_subject(layout, old, new)


def change_words(layout: Layout, name: str, identifier: str | None, class_noun: str | None, *, allow: bool) -> Subject:
    """Gives a subject another identifier or class noun. LockHeld while a run is being trained on it."""
    if identifier is None and class_noun is None:
        subject = load_subject(layout, name)
        proposal = command("dreambooth", "subjects", "set", subject.name, "--token", proposed_words(layout, subject)[0])
        raise UsageError("Nothing to set: --token WORD or --class NOUN is missing.", hint=proposal)
    _check_at_rest(layout, name)
    check = token_check(layout, allow_collision=allow)
    return store_words(layout, name, identifier, class_noun, tokens=check)


def remove(layout: Layout, name: str) -> None:
    """Deletes a subject with its photos; runs keep their history. LockHeld while a run is being trained on it."""
    _check_at_rest(layout, name)
    remove_subject(layout, name)


def _check_at_rest(layout: Layout, name: str) -> None:
    names = frozenset({name})
    with suppress(DreamboothError):  # what is wrong with its record is for the command itself to mend or to tell
        names = load_subject(layout, name).names
    for run in list_runs(layout):
        learns = run.state in ("created", "running") and any(one.name in names for one in run.subjects)
        if learns and is_held(layout.run_lock(run.name)):
            raise LockHeld(f"{run.name} is training on '{name}' now.", hint="wait for it, or stop it")
