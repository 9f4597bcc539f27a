"""Bringing a subject into a project, and giving it the word that will stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dbcli.errors import UsageError
from dbcli.project import subjects as store
from dbcli.project.layout import Layout
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
    check = token_check(allow_collision=allow_collision) if token is not None else None
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
    found = [store.load_subject(layout, name) for name in names]
    if token is not None:
        check = token_check(allow_collision=allow_collision)
        found = [store.set_identifier(layout, names[0], token, tokens=check)]
    for subject in found:
        if not subject.identifier:
            raise UsageError(
                f"The subject '{subject.name}' has no identifier yet: --token is missing.", hint="add --token sks"
            )
    return found
