"""Subjects: the record and the photos of one particular thing, under `subjects/NAME/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dbcli.errors import DreamboothError, Refused, SubjectError
from dbcli.hints import command, nearest
from dbcli.project.files.atomic import (
    commit_folder,
    remove_folder,
    remove_leftovers,
    sha256_of,
    temporary_folder,
    write_bytes,
)
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.files.names import check_name, check_no_twin, names_in, printable
from dbcli.project.files.records import load_record
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.prompts.identifiers import RESERVED_FIELDS, check_class_noun
from dbcli.project.runs.run_store import list_runs
from dbcli.project.subjects.photos import Photo, Skipped, reasons, walk_photos
from dbcli.project.subjects.registry import Registry, TokenCheck
from dbcli.project.subjects.subject_record import PhotoEntry, Subject

LOCK_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class AddedSubject:
    """What `store_subject` made, what it left out, what it changed, and the names that the photos came with."""

    subject: Subject
    skipped: list[Skipped]
    notes: list[str]
    source_names: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> list[str]:
        """Why files that claimed to be photos were left out, for a person."""
        return reasons(self.skipped)


def store_subject(
    layout: Layout,
    name: str,
    class_noun: str,
    sources: Sequence[Path],
    identifier: str | None = None,
    *,
    tokens: TokenCheck | None = None,
) -> AddedSubject:
    """Copy the photos in, as PNG without EXIF, and write the record; on any failure nothing is left.

    Raises UsageError for bad words, Refused if the subject exists, Collision for a taken identifier,
    SubjectError without a single usable photo.
    """
    final = layout.subject_dir(name)
    check_new_name(layout, name, way_on(name, class_noun, identifier))
    subject = Subject(name=name, class_noun=check_class_noun(class_noun))
    layout.subjects_dir.mkdir(parents=True, exist_ok=True)
    with hold(layout.project_lock, "the project's subjects", wait_seconds=LOCK_WAIT_SECONDS):
        remove_leftovers(layout.subjects_dir)
        check_new_name(layout, name, way_on(name, class_noun, identifier))
        registry = registry_of(layout)
        registry.check_noun(subject, tokens)
        if identifier is not None:
            subject.identifier = registry.check_identifier(subject, identifier, tokens)
        with temporary_folder(final) as folder:
            skipped, notes, names = _store_photos(folder / "photos", subject, sources)
            write_yaml(folder / "subject.yaml", subject.to_plain())
            give_up_name(layout, name)
            commit_folder(folder, final)
    return AddedSubject(subject, skipped, notes, names)


def check_new_name(
    layout: Layout, name: str, way_on: str = "choose another name", *, renamed: Subject | None = None
) -> None:
    """Raise UsageError or Refused for a name that no new subject, or none that is `renamed`, can have.

    `way_on` is the hint where it is taken.
    """
    check_name(name, "subject")
    if name in RESERVED_FIELDS:
        raise Refused(f"A subject cannot be called '{name}': {{{name}}} has a meaning of its own in templates.")
    if layout.subject_dir(name).exists():
        where = layout.shown(layout.subject_dir(name))
        if not layout.subject_file(name).exists():
            raise Refused(f"{where} is there already, and is no subject.", hint=_without_record(name))
        raise Refused(f"The subject '{name}' already exists ({where}).", hint=way_on)
    own = renamed.name if renamed is not None else None
    check_no_twin(name, "subject", [one for one in names_in(layout.subjects_dir) if one != own])
    registry_of(layout).check_name(name, renamed)


def _without_record(name: str) -> str:
    return f"move the folder elsewhere; dreambooth add-subject {name} FOLDER takes the photos in it"


def way_on(name: str, class_noun: str | None, identifier: str | None) -> str:
    """What to type instead of adding a subject that is there: its words can be changed, its photos only replaced."""
    given = {"--token": identifier, "--class": class_noun}
    words = [part for option, word in given.items() if word is not None for part in (option, word)]
    changed = command("dreambooth", "subjects", "set", name, *words)
    first = f"{changed} gives it these words" if words else f"dreambooth train --subject {name} teaches it"
    return f"{first}; dreambooth subjects remove {name} makes room for other photos"


def load_subject(layout: Layout, name: str) -> Subject:
    """Return the record of a subject, by its name or by one it had before, as runs know it.

    Raises SubjectError if it is not there or damaged, naming what is.
    """
    try:
        return _load_exactly(layout, name)
    except FileNotFoundError as error:
        renamed = next((one for one in list_subjects(layout) if name in one.formerly), None)
        if renamed is not None:
            return renamed
        if layout.subject_dir(name).is_dir():
            raise SubjectError(
                f"{layout.shown(layout.subject_dir(name))} is no subject: it has no subject.yaml.",
                hint=_without_record(name),
            ) from error
        known = [one for one in names_in(layout.subjects_dir) if layout.subject_file(one).is_file()]
        meant = nearest(name, known)
        guess = "" if meant is None else f" Did you mean {meant}?"
        raise SubjectError(
            f"There is no subject '{name}' here. Known: {', '.join(known) or 'none yet'}.{guess}",
            hint=f"dreambooth add-subject {name}",
            meant=None if meant is None else (name, meant),
        ) from error


def _load_exactly(layout: Layout, name: str) -> Subject:
    """The record in the folder of that name. Raises FileNotFoundError where there is none."""
    path = layout.subject_file(name)
    subject = load_record(Subject, path, f"record of the subject '{name}'", SubjectError)
    if subject.name != name:
        raise SubjectError(
            f"{path} is the record of '{printable(subject.name)}', not of '{name}'.",
            hint=f"dreambooth subjects rename {name} {printable(subject.name)} completes an interrupted renaming",
        )
    return subject


def list_subjects(layout: Layout) -> list[Subject]:
    """Return all subjects that can be read, sorted by name; see `damaged_subjects` for the rest."""
    return [one for name in names_in(layout.subjects_dir) if isinstance(one := _try_load(layout, name), Subject)]


def damaged_subjects(layout: Layout) -> list[str]:
    """Return one line per subject folder that cannot be read."""
    results = [_try_load(layout, name) for name in names_in(layout.subjects_dir)]
    return [result for result in results if isinstance(result, str)]


def set_identifiers(
    layout: Layout, identifiers: Mapping[str, str], *, tokens: TokenCheck | None = None
) -> list[Subject]:
    """Give subjects, by name, their identifiers, all of them or none, and return the new records.

    Raises Collision if another subject owns one, or two of them would share one.
    """
    with hold(layout.project_lock, "the project's subjects", wait_seconds=LOCK_WAIT_SECONDS):
        found = with_identifiers(layout, identifiers, tokens=tokens)
        for subject in found:
            if subject != load_subject(layout, subject.name):
                write_yaml(layout.subject_file(subject.name), subject.to_plain())
    return found


def with_identifiers(
    layout: Layout, identifiers: Mapping[str, str], *, tokens: TokenCheck | None = None
) -> list[Subject]:
    """Return the records that `set_identifiers` would write, and raise what it would."""
    before = {subject.name: subject for name in identifiers for subject in [load_subject(layout, name)]}
    # Each may take what another one of them gives up, so none counts with its old identifier.
    known = {one.name: one for one in list_subjects(layout)}
    known |= {name: one.model_copy(update={"identifier": None}) for name, one in before.items()}
    for subject, identifier in zip(before.values(), identifiers.values(), strict=True):
        registry = Registry(list(known.values()), list_runs(layout))
        word = registry.check_identifier(subject, identifier, tokens)
        known[subject.name] = subject.model_copy(update={"identifier": word})
    return [known[name] for name in before]


def store_words(
    layout: Layout, name: str, identifier: str | None, class_noun: str | None, *, tokens: TokenCheck | None = None
) -> Subject:
    """Give a subject another identifier, another class noun, or both; runs keep the words that they learnt.

    Raises UsageError for bad words, Collision where one of them belongs to another subject.
    """
    with hold(layout.project_lock, "the project's subjects", wait_seconds=LOCK_WAIT_SECONDS):
        subject, registry = load_subject(layout, name), registry_of(layout)
        if class_noun is not None:
            subject.class_noun = check_class_noun(class_noun)
            registry.check_noun(subject, tokens)
        word = identifier if identifier is not None else subject.identifier
        if word is not None:
            # The old one too: it may be a word of the new class noun.
            subject.identifier = registry.check_identifier(subject, word, tokens)
        write_yaml(layout.subject_file(subject.name), subject.to_plain())
    return subject


def give_up_name(layout: Layout, name: str) -> None:
    """Take a name that no run remembers from the subjects that had it before: somebody else is about to be called so.

    Left there, the newcomer's word would count as the word of the one that was called so once.
    """
    for other in list_subjects(layout):
        if name in other.formerly and name != other.name:
            other.formerly.remove(name)
            write_yaml(layout.subject_file(other.name), other.to_plain())


def photo_paths(layout: Layout, subject: Subject) -> list[Path]:
    """Return the paths of a subject's photos, in the order of its record."""
    folder = layout.photos_dir(subject.name)
    return [folder / entry.file for entry in subject.photos]


def verify_photos(layout: Layout, subject: Subject) -> list[Path]:
    """Return `photo_paths` after comparing every file with its recorded hash.

    Raises SubjectError naming every photo that is missing, replaced by a link, or changed.
    """
    problems = []
    paths = photo_paths(layout, subject)
    for path, entry in zip(paths, subject.photos, strict=True):
        if path.is_symlink() or not path.is_file():
            problems.append(f"{layout.shown(path)} is missing")
        elif sha256_of(path) != entry.sha256:
            problems.append(f"{layout.shown(path)} is not the photo that was added")
    if not paths:
        problems.append(f"{layout.shown(layout.photos_dir(subject.name))} contains no photos")
    if problems:
        raise SubjectError(
            f"The photos of '{subject.name}' have changed:\n" + "\n".join(f"  {one}" for one in problems),
            hint=f"delete {layout.shown(layout.subject_dir(subject.name))} and add the subject again",
        )
    return paths


def remove_subject(layout: Layout, name: str) -> None:
    """Delete a subject with its photos; runs keep what they recorded of it."""
    with hold(layout.project_lock, "the project's subjects", wait_seconds=LOCK_WAIT_SECONDS):
        subject = load_subject(layout, name)
        remove_folder(layout.subject_dir(subject.name))


def verify_words(layout: Layout, subject: Subject, tokens: TokenCheck, beside: Sequence[Subject] = ()) -> None:
    """Raise Collision if a subject's words clash by now: that was allowed once, or a record was edited.

    Subjects that are `beside` it count as they are there, not as they are stored.
    """
    if subject.identifier:
        known = {one.name: one for one in [*list_subjects(layout), *beside]}
        Registry(list(known.values()), list_runs(layout)).check_identifier(subject, subject.identifier, tokens)


def registry_of(layout: Layout) -> Registry:
    """Return all subjects and runs of a project, as they are on disk now."""
    return Registry(list_subjects(layout), list_runs(layout))


def _store_photos(
    folder: Path, subject: Subject, sources: Sequence[Path]
) -> tuple[list[Skipped], list[str], list[str]]:
    """Fills `folder` and the record; returns what was left out, what was changed, and the photos' first names."""
    folder.mkdir()
    skipped: list[Skipped] = []
    notes: list[str] = []
    names: list[str] = []
    for result in walk_photos(sources):
        if isinstance(result, Skipped):
            skipped.append(result)
            continue
        file = f"{len(subject.photos) + 1:04d}.png"
        write_bytes(folder / file, result.png)
        subject.photos.append(_entry(file, result))
        names.append(printable(result.source.name))
        notes += [f"{printable(result.source.name)}: {note}" for note in result.notes]
    if not subject.photos:
        lines = [f"  {line}" for line in reasons(skipped)] or ["  no photo was found"]
        raise SubjectError(
            "None of the files can be used as a photo:\n" + "\n".join(lines[:20]),
            hint="three to six photos (jpg, png, webp, avif, gif, bmp, tiff) of at least 64 x 64 pixels",
        )
    return skipped, notes, names


def _entry(file: str, photo: Photo) -> PhotoEntry:
    return PhotoEntry(file=file, sha256=photo.sha256, width=photo.width, height=photo.height, caption=photo.caption)


def _try_load(layout: Layout, name: str) -> Subject | str:
    try:
        return _load_exactly(layout, name)
    except FileNotFoundError:
        return f"{layout.shown(layout.subject_dir(name))} contains no subject.yaml."
    except DreamboothError as error:
        return error.message
