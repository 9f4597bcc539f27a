"""What a person brings as subjects: photos with words, kohya's folders, a copy of a dataset of many subjects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import DataError, SubjectError, UsageError
from dbcli.hints import command
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable, slug
from dbcli.project.images.pixels import FORMATS
from dbcli.project.subjects.photos import list_files, looks_like_a_photo
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import list_subjects
from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    from dbcli.metrics.dataset import Dataset

# kohya's way to name a folder of photos: `40_sks dog` is forty repeats of photos of "sks dog".
_KOHYA_NAME = re.compile(r"([0-9]{1,6})_(.*\S.*)")


@dataclass(frozen=True)
class NewSubject:
    """One subject to be added: its name, class noun, photos or folders of them, and its identifier if known."""

    name: str
    class_noun: str
    photos: list[Path]
    token: str | None = None


@dataclass(frozen=True)
class KohyaFolder:
    """A folder named kohya's way; `words` is what its photos show, the identifier first and the class noun after it."""

    path: Path
    repeats: int
    words: str

    def identifier_and_class(self, class_noun: str | None = None) -> tuple[str | None, str | None]:
        """Return both; a single word is the identifier where the class noun is known otherwise, else the noun."""
        first, _, rest = self.words.partition(" ")
        if rest:
            return first, rest
        return (first, None) if class_noun else (None, first)


def kohya_folders(source: Path) -> list[KohyaFolder]:
    """Return the folder itself if it is named kohya's way, else those right inside of it, sorted by name."""
    source = source.expanduser().absolute()
    for paths in ([source], sorted(source.iterdir()) if source.is_dir() else []):
        found = [(path, name) for path in paths if (name := _KOHYA_NAME.fullmatch(path.name)) and path.is_dir()]
        if found:
            return [KohyaFolder(path, int(name[1]), " ".join(name[2].split())) for path, name in found]
    return []


def words_of_folders(photos: Sequence[Path], class_noun: str | None) -> tuple[str | None, str | None]:
    """The identifier and the class noun that kohya's folder names say, None for what they do not say.

    Raises UsageError where several folders show several things.
    """
    folders = [folder for source in photos for folder in kohya_folders(source)]
    words = sorted({folder.words for folder in folders})
    if len(words) > 1:
        shown = ", ".join(printable(one) for one in words[:5])
        raise UsageError(
            f"These folders show {len(words)} things: {shown}.",
            hint=f"name one folder, or take them all: {command('dreambooth', 'add-subject', '--dataset', photos[0])}",
        )
    return folders[0].identifier_and_class(class_noun) if folders else (None, None)


def repeats_of_folders(photos: Sequence[Path]) -> str | None:
    """A line on the repeats in kohya's folder names, which mean nothing here; None where there are none."""
    repeats = sorted({folder.repeats for source in photos for folder in kohya_folders(source)})
    if not repeats or repeats == [1]:
        return None
    counts = " and ".join(str(count) for count in repeats)
    return f"{counts} repeats: here --steps sets a run's length, and every photo is used equally often"


def dataset_subjects(
    layout: Layout,
    folder: Path,
    *,
    name: str | None,
    class_noun: str | None,
    token: str | None,
    progress: Progress,
) -> list[NewSubject]:
    """The subjects of a copy of google/dreambooth's dataset, or of a folder of kohya's folders: one by name, or all.

    Of all, those that the project has already are passed over. Raises DataError for a folder that is neither,
    UsageError for a name that is not in it, and for words where several subjects are meant.
    """
    from dbcli.metrics.dataset import LIST_FILE

    source = folder.expanduser()
    found = _of_google(source, progress) if (source / LIST_FILE).is_file() else _of_kohya(source)
    if name is not None:
        chosen = [one for one in found if one.name == name]
        if not chosen:
            names = ", ".join(one.name for one in found)
            raise UsageError(f"{printable(name)} is not in {source}; there are {names}.")
        one = chosen[0]
        return [NewSubject(one.name, class_noun or one.class_noun, one.photos, one.token if token is None else token)]
    if class_noun or token:
        raise UsageError(
            "--class and --token are for one subject; --dataset adds all.", hint="add NAME, or leave them out"
        )
    known = {subject.name for subject in list_subjects(layout)}
    for one in found:
        if one.name in known:
            progress.note(f"{one.name} already exists and was skipped.")
    return [one for one in found if one.name not in known]


def open_dataset(folder: Path, progress: Progress) -> Dataset:
    """The subjects, class nouns and prompts of a copy. Raises DataError for another folder."""
    from dbcli.metrics.dataset import read_dataset

    dataset = read_dataset(folder.expanduser())
    if dataset.missing:
        progress.note(f"Listed, but not in this copy: {', '.join(dataset.missing)}.")
    return dataset


def check_photos(sources: Sequence[Path]) -> None:
    """Raises PhotoError for a source that is not there, SubjectError where nothing among them looks like a photo."""
    files = list_files(sources)
    if not any(looks_like_a_photo(path) for path in files):
        shown = ", ".join(printable(str(source), 200) for source in sources)
        raise SubjectError(f"There is no photo in {shown}.", hint=f"three to six photos ({', '.join(FORMATS)})")


def known_subject(layout: Layout, name: str) -> Subject | None:
    """A subject that the project has, None if it has none of that name."""
    return next((subject for subject in list_subjects(layout) if subject.name == name), None)


def _of_google(folder: Path, progress: Progress) -> list[NewSubject]:
    subjects = open_dataset(folder, progress).subjects
    return [NewSubject(one.name, one.class_noun, list(one.photos)) for one in subjects]


def _of_kohya(folder: Path) -> list[NewSubject]:
    by_words: dict[str, list[KohyaFolder]] = {}
    for one in kohya_folders(folder):
        by_words.setdefault(one.words, []).append(one)
    if not by_words:
        raise DataError(
            f"{folder} is not a known dataset.",
            hint="a copy of google/dreambooth's dataset (prompts_and_classes.txt and a folder per subject), "
            'or folders named kohya\'s way ("40_sks dog")',
        )
    subjects: list[NewSubject] = []
    for words, folders in by_words.items():
        token, noun = folders[0].identifier_and_class()
        name = _free_name(slug(noun or words, "subject"), slug(words, "subject"), [one.name for one in subjects])
        subjects.append(NewSubject(name, noun or words, [one.path for one in folders], token))
    return subjects


def _free_name(short: str, long: str, taken: Sequence[str]) -> str:
    """The class noun; the identifier with it where two subjects are of one class, and a number at the very worst."""
    tries = [short, long, *(f"{long}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in tries if name not in taken)
