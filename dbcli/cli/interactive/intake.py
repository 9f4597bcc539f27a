"""From the command line to subjects in the project; what was left out is read from folders' names, or asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.cli.interactive.dropped_paths import dropped_paths
from dbcli.cli.invocation import Invocation
from dbcli.cli.output.guidance import review_document
from dbcli.cli.output.listings import added_document, show_added
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.project.subjects.subject_record import Subject
    from dbcli.project.subjects.subject_store import AddedSubject
    from dbcli.workflows.subjects.annotate import Annotated
    from dbcli.workflows.subjects.photo_review import PhotoReview
    from dbcli.workflows.subjects.sources import NewSubject


@dataclass(frozen=True)
class Wanted:
    """What the command line says of the subjects to add."""

    name: str | None
    photos: list[Path] | None
    class_noun: str | None
    token: str | None
    dataset: Path | None
    mask: bool
    caption: bool
    allow_collision: bool


@dataclass(frozen=True)
class Brought:
    """One subject that was brought in, and all that is to be said of it."""

    added: AddedSubject
    advice: list[str]
    review: PhotoReview
    annotated: Annotated


def bring_in(call: Invocation, wanted: Wanted) -> None:
    """Adds what is wanted; without photos, gives a subject that is there already its masks and captions."""
    from dbcli.workflows.subjects.annotate import annotate, load_annotators
    from dbcli.workflows.subjects.sources import known_subject

    layout = call.layout()
    # First of all: a model that is not there must not cost a subject that is half made.
    annotators = load_annotators(layout, mask=wanted.mask, caption=wanted.caption, offline=call.offline)
    if wanted.name and not wanted.photos and wanted.dataset is None and (wanted.mask or wanted.caption):
        known = known_subject(layout, wanted.name)
        if known is not None:
            return _show_annotated(call.screen, known, annotate(layout, known, annotators, call.screen))
    brought = []
    for one in _subjects(call, layout, wanted):
        added, advice, review = _add(call, layout, one, wanted)
        brought.append(Brought(added, advice, review, annotate(layout, added.subject, annotators, call.screen)))
    _show_brought(call.screen, layout, brought)
    return None


def _subjects(call: Invocation, layout: Layout, wanted: Wanted) -> Sequence[NewSubject]:
    from dbcli.workflows.subjects.manage import check_new_name, check_new_noun
    from dbcli.workflows.subjects.sources import NewSubject, dataset_subjects, repeats_of_folders, words_of_folders

    if wanted.dataset is not None:
        if wanted.photos:
            raise UsageError("--dataset brings its own photos.", hint="leave PHOTO out")
        found: Sequence[NewSubject] = dataset_subjects(
            layout,
            wanted.dataset,
            name=wanted.name,
            class_noun=wanted.class_noun,
            token=wanted.token,
            progress=call.screen,
        )
        return found
    name = call.wanted(
        wanted.name, "NAME", "A short name for the subject, like rex", check=partial(check_new_name, layout)
    )
    photos = wanted.photos or _asked_photos(call)
    token, noun = words_of_folders(photos, wanted.class_noun)
    question = f"What kind of thing is {name} (its class noun)"
    class_noun = call.wanted(
        wanted.class_noun or noun, "--class", question, lambda: name, check=partial(check_new_noun, layout, name)
    )
    if token or noun:
        call.screen.note(f"From the folder's name: {wanted.token or token or ''} {class_noun}".replace("  ", " "))
    repeats = repeats_of_folders(photos)
    if repeats:
        call.screen.note(repeats)
    return [NewSubject(name, class_noun, photos, token if wanted.token is None else wanted.token)]


def _asked_photos(call: Invocation) -> list[Path]:
    from dbcli.workflows.subjects.sources import check_photos

    def check(answer: str) -> None:
        check_photos(dropped_paths(answer))

    return dropped_paths(
        call.wanted(None, "PHOTO", "Where are its photos (a folder, or files dropped here)", check=check)
    )


def _add(call: Invocation, layout: Layout, one: NewSubject, wanted: Wanted) -> tuple[Any, list[str], Any]:
    from dbcli.workflows.subjects.manage import add_subject
    from dbcli.workflows.subjects.photo_review import review_photos

    added, advice = add_subject(
        layout, one.name, one.class_noun, one.photos, one.token, allow_collision=wanted.allow_collision
    )
    return added, advice, review_photos(layout, added.subject, added.source_names, call.screen)


def _show_brought(screen: Screen, layout: Layout, brought: Sequence[Brought]) -> None:
    """One document whatever the number: of one subject its own, of several a list of them."""
    from dbcli.workflows.status import teaching

    documents = [
        added_document(one.added, one.advice) | review_document(one.review) | _annotated_document(one.annotated)
        for one in brought
    ]
    screen.document(documents[0] if len(documents) == 1 else {"added": documents})
    for one in brought:
        show_added(screen, one.added, one.advice, one.review, teaching(layout, one.added.subject))
        _tell_annotated(screen, one.annotated)
    if not brought:
        screen.line("Nothing was left to add.")


def _show_annotated(screen: Screen, subject: Subject, annotated: Annotated) -> None:
    screen.document({"subject": subject.to_plain(), **_annotated_document(annotated)})
    _tell_annotated(screen, annotated)
    if not (annotated.masks or annotated.captions):
        screen.line(f"Subject {subject.name}: no mask or caption was missing")


def _annotated_document(annotated: Annotated) -> dict[str, object]:
    return {"masks": [str(path) for path in annotated.masks], "captions": [str(path) for path in annotated.captions]}


def _tell_annotated(screen: Screen, annotated: Annotated) -> None:
    for note in annotated.notes:
        screen.warn(note)
    for what, paths in (("Masks", annotated.masks), ("Captions", annotated.captions)):
        if paths:
            screen.line(f"{what}: {len(paths)} in {paths[0].parent}, to be looked at and corrected")
