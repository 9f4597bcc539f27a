"""Bringing a subject into a project, and giving it the word that will stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbcli.errors import LockHeld, UsageError
from dbcli.project import subjects as store
from dbcli.project.layout import Layout
from dbcli.project.locks import is_held
from dbcli.project.renaming import rename_subject
from dbcli.project.runs import list_runs
from dbcli.project.subjects import AddedSubject, Subject
from dbcli.workflows.tokens import token_check

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
    check = token_check(allow_collision=allow_collision)
    added = store.add_subject(layout, name, class_noun, photos, token, tokens=check)
    count = len(added.subject.photos)
    advice = []
    if count < FEW:
        advice.append(f"{count} photo{'s' if count > 1 else ''}: three to six, from several sides, teach more.")
    if count > MANY:
        advice.append(f"{count} photos: a handful of the best usually teaches better than many.")
    return added, advice


def known_subjects(layout: Layout) -> list[Subject]:
    """Every subject of the project that can be read."""
    return store.list_subjects(layout)


def named_subjects(
    layout: Layout, names: Sequence[str], token: str | None, *, allow_collision: bool = False
) -> list[Subject]:
    """The subjects of a run with their identifiers settled; `token` is that of the only subject.

    Raises UsageError where a subject has no identifier and none is given, Collision for a taken one.
    """
    if not names:
        raise UsageError("--subject is missing.", hint="add --subject NAME")
    if len(set(names)) < len(names):
        raise UsageError("The same --subject is named twice.")
    if token is not None and len(names) > 1:
        raise UsageError(
            "--token names one word, and there are several subjects.",
            hint="give each subject its own with dreambooth add-subject NAME ... --token WORD",
        )
    check = token_check(allow_collision=allow_collision)
    found = [store.load_subject(layout, name) for name in names]
    if len({subject.name for subject in found}) < len(found):
        raise UsageError("The same --subject is named twice, by its old name and its new one.")
    if token is not None:
        found = [store.set_identifier(layout, names[0], token, tokens=check)]
    for subject in found:
        if not subject.identifier:
            raise UsageError(
                f"The subject '{subject.name}' has no identifier yet: --token is missing.", hint="add --token sks"
            )
        # A clash that was allowed once is allowed again, and written into the run, or there is no run.
        store.verify_words(layout, subject, check)
    return found


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
        for one in store.list_subjects(layout)
    ]
    return entries, store.damaged_subjects(layout)


def rename(layout: Layout, old: str, new: str) -> Subject:
    """Gives a subject another name; runs keep the one they learnt. LockHeld while a run is being trained on it."""
    _check_at_rest(layout, old)
    return rename_subject(layout, old, new)


def remove(layout: Layout, name: str) -> None:
    """Deletes a subject with its photos; runs keep their history. LockHeld while a run is being trained on it."""
    _check_at_rest(layout, name)
    store.remove_subject(layout, name)


def _check_at_rest(layout: Layout, name: str) -> None:
    for run in list_runs(layout):
        learns = run.state in ("created", "running") and any(one.name == name for one in run.subjects)
        if learns and is_held(layout.run_lock(run.name)):
            raise LockHeld(f"{run.name} is training on '{name}' now.", hint="wait for it, or stop it")
