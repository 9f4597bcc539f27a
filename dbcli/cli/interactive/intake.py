"""From the command line to subjects in the project; what was left out is read from folders' names, or asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.cli.interactive.dropped_paths import dropped_paths
from dbcli.cli.invocation import Invocation
from dbcli.cli.output.subjects import added_document, show_added
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.project.subjects.subject_record import Subject
    from dbcli.workflows.subjects.annotate import Annotated
    from dbcli.workflows.subjects.sources import NewSubject


@dataclass(frozen=True)
class AddRequest:
    """The subjects to add, as the command line names them."""

    name: str | None
    photos: list[Path] | None
    class_noun: str | None
    token: str | None
    dataset: Path | None
    mask: bool | None
    caption: bool | None
    allow_collision: bool


def bring_in(call: Invocation, request: AddRequest) -> None:
    """Adds what is asked for; without photos, gives a subject that already exists its masks and captions."""
    from dbcli.workflows.status import teaching
    from dbcli.workflows.subjects.annotate import annotate, load_annotators
    from dbcli.workflows.subjects.known_noun import noun_advice
    from dbcli.workflows.subjects.manage import add_subject
    from dbcli.workflows.subjects.photo_review import review_photos
    from dbcli.workflows.subjects.sources import known_subject

    layout, screen = call.layout, call.screen
    # First of all: a model that is not there must not cost a subject that is half made.
    annotators = load_annotators(
        layout, mask=request.mask, caption=request.caption, offline=call.offline, note=screen.note
    )
    if request.name and not request.photos and request.dataset is None and (request.mask or request.caption):
        known = known_subject(layout, request.name)
        # With other words it goes on as a new subject would, and is told how those of one that is there are changed.
        if known is not None and _has_words_of(known, request):
            annotated = annotate(layout, known, annotators, screen)
            screen.document({"subject": known.to_plain()} | _show_annotated(screen, annotated))
            if not (annotated.masks or annotated.captions):
                screen.line(f"Subject {known.name}: no mask or caption was missing")
            return
    documents = []
    for one in _subjects(call, layout, request):
        added, advice = add_subject(
            layout, one.name, one.class_noun, one.photos, one.token, allow_collision=request.allow_collision
        )
        # Masks first: they say how large the subject is.
        annotated = annotate(layout, added.subject, annotators, screen)
        review = review_photos(layout, added.subject, added.source_names, screen)
        advice += noun_advice(layout, added.subject)
        show_added(screen, added, advice, review, teaching(layout, added.subject))
        documents.append(added_document(added, advice, review) | _show_annotated(screen, annotated))
    if not documents:
        screen.line("Nothing was left to add.")
    # One document whatever the number: of one subject its own, of several a list of them.
    screen.document(documents[0] if len(documents) == 1 else {"added": documents})


def _has_words_of(known: Subject, request: AddRequest) -> bool:
    """Whether the words that are given, if any, are the subject's own."""
    return request.class_noun in (None, known.class_noun) and request.token in (None, known.identifier)


def _subjects(call: Invocation, layout: Layout, request: AddRequest) -> Sequence[NewSubject]:
    from dbcli.workflows.subjects.manage import check_new_name, check_new_noun, way_on
    from dbcli.workflows.subjects.sources import (
        NewSubject,
        check_photos,
        dataset_subjects,
        repeats_of_folders,
        words_of_folders,
    )

    if request.dataset is not None:
        if request.photos:
            raise UsageError("--dataset brings its own photos.", hint="leave PHOTO out")
        return dataset_subjects(
            layout,
            request.dataset,
            name=request.name,
            class_noun=request.class_noun,
            token=request.token,
            progress=call.screen,
        )
    question = "Short name for the subject, like rex"
    name = call.wanted(request.name, "NAME", question, check=partial(check_new_name, layout))
    # Before anything else is asked for: of a subject that is there nothing else matters.
    check_new_name(layout, name, way_on(name, request.class_noun, request.token))
    question = "Where are its photos (a folder, or files dropped here)"
    photos = request.photos or dropped_paths(
        call.wanted(None, "PHOTO", question, check=lambda answer: check_photos(dropped_paths(answer)))
    )
    token, noun = words_of_folders(photos, request.class_noun)
    class_noun = call.wanted(
        request.class_noun or noun,
        "--class",
        f"What kind of thing is {name} (its class noun)",
        lambda: name,
        check=partial(check_new_noun, layout, name),
    )
    if token or noun:
        call.screen.note(f"From the folder's name: {request.token or token or ''} {class_noun}".replace("  ", " "))
    repeats = repeats_of_folders(photos)
    if repeats:
        call.screen.note(repeats)
    return [NewSubject(name, class_noun, photos, token if request.token is None else request.token)]


def _show_annotated(screen: Screen, annotated: Annotated) -> dict[str, object]:
    """The masks and captions that were written, in words; returned as JSON."""
    screen.warn(*annotated.notes)
    for path, text in zip(annotated.captions, annotated.texts, strict=True):
        screen.line(f"  {path.name}: {text}")
    files: dict[str, list[Path]] = {"masks": annotated.masks, "captions": annotated.captions}
    for what, paths in files.items():
        if paths:
            screen.line(f"{what.capitalize()}: {len(paths)} in {paths[0].parent}, please check and correct them")
    return {**files, "caption_texts": annotated.texts}
