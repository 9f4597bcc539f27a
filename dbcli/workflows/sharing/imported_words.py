"""Which words an imported file answers to: those that a person gives, else those that the file names itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import NAME_PATTERN, printable, slug, without_control_characters
from dbcli.project.prompts.identifiers import RESERVED_FIELDS, check_class_noun, check_identifier
from dbcli.project.runs.run_store import RunSubject, list_runs
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import list_subjects
from dbcli.workflows.sharing.export_metadata import SUBJECTS_KEY
from dbcli.workflows.subjects.identifiers import check_new_words

# How the descriptions of this program's exports begin; their trigger phrase lists all subjects.
OWN_DESCRIPTIONS = ("DreamBooth on ", "Textual inversion on ")
MOST_SUBJECTS = 100


@dataclass(frozen=True)
class Trigger:
    """The words of one subject, and the subject's name where it is known."""

    identifier: str
    class_noun: str
    name: str | None = None


def asked_words(tokens: Sequence[str], class_nouns: Sequence[str]) -> list[Trigger]:
    """The pairs that a person gave: the first --token with the first --class, and so on; NAME=WORD names a subject.

    Raises UsageError where one lacks the other, or a word is given twice.
    """
    if len(tokens) != len(class_nouns):
        raise UsageError(
            f"--token and --class go together: {len(tokens)} of one and {len(class_nouns)} of the other were given.",
            hint="for example --token sks --class dog",
        )
    triggers = []
    for token, class_noun in zip(tokens, class_nouns, strict=True):
        name, word = _named(token)
        other, noun = _named(class_noun)
        if name and other and name != other:
            raise UsageError(
                f"--token {printable(token)} and --class {printable(class_noun)} are a pair by their order, "
                "and name two subjects.",
                hint="give both in the same order",
            )
        triggers.append(Trigger(check_identifier(word), check_class_noun(noun), name or other))
    _check_different(triggers)
    return triggers


def _named(text: str) -> tuple[str | None, str]:
    """`wolf=sks` → (`wolf`, `sks`); a word without such a name is itself."""
    name, sign, rest = text.partition("=")
    return (name, rest) if sign and rest.strip() and NAME_PATTERN.fullmatch(name) else (None, text)


def _check_different(triggers: Sequence[Trigger]) -> None:
    for values, what in (
        ([one.identifier.casefold() for one in triggers], "word"),
        ([one.name for one in triggers], "name"),
    ):
        known = [value for value in values if value]
        twice = next((value for value in known if known.count(value) > 1), None)
        if twice is not None:
            raise UsageError(f"The {what} '{printable(twice)}' is given to two subjects.", hint="each needs its own")


def words_of_file(metadata: Mapping[str, str], *, nounless: bool = False) -> list[Trigger]:
    """The words in a file's own metadata: all subjects of this program's exports, ModelSpec's trigger phrase, or the
    folders that kohya's tools trained on; none where it names no usable pair. With `nounless`, as embeddings can be, a
    word of this program's exports may stand alone."""
    found = _own_subjects(metadata, nounless=nounless)
    if not found:
        phrases = metadata.get("modelspec.trigger_phrase", "").split(",")
        # A stranger's phrase goes on with whatever makes good images.
        is_own = metadata.get("modelspec.description", "").startswith(OWN_DESCRIPTIONS)
        found = _pairs(phrases if is_own else phrases[:1])
    if not found:
        found = _pairs(_folders(metadata))
    words: dict[str, Trigger] = {}
    for one in found[:MOST_SUBJECTS]:
        words.setdefault(one.identifier.casefold(), one)
    return list(words.values())


def _own_subjects(metadata: Mapping[str, str], *, nounless: bool) -> list[Trigger]:
    found = []
    for entry in _json(metadata, SUBJECTS_KEY, list):
        texts = [entry.get(key) for key in ("word", "class", "name")] if isinstance(entry, dict) else []
        if not all(isinstance(text, str) for text in texts) or not texts:
            continue
        trigger = _usable(str(texts[0]), str(texts[1]), nounless=nounless)
        if trigger is not None:
            name = str(texts[2])
            is_name = NAME_PATTERN.fullmatch(name) and name not in RESERVED_FIELDS
            found.append(Trigger(trigger.identifier, trigger.class_noun, name if is_name else None))
    return found


def _folders(metadata: Mapping[str, str]) -> list[str]:
    """`40_sks dog` → `sks dog`, of every folder but those of class images."""
    others = _json(metadata, "ss_reg_dataset_dirs", dict)
    for key in ("ss_tag_frequency", "ss_dataset_dirs"):
        phrases = [str(folder).partition("_")[2] for folder in _json(metadata, key, dict) if folder not in others]
        if _pairs(phrases):
            return phrases
    return []


def _json(metadata: Mapping[str, str], key: str, kind: type) -> Any:
    try:
        value = json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError):
        return kind()
    return value if isinstance(value, kind) else kind()


def _pairs(phrases: Sequence[str]) -> list[Trigger]:
    words = [without_control_characters(phrase).strip().partition(" ") for phrase in phrases]
    found = [_usable(identifier, noun) for identifier, _, noun in words]
    return [one for one in found if one is not None]


def _usable(identifier: str, noun: str, *, nounless: bool = False) -> Trigger | None:
    try:
        return Trigger(check_identifier(identifier), "" if nounless and not noun else check_class_noun(noun))
    except UsageError:
        return None


def imported_subjects(
    layout: Layout, title: str, triggers: Sequence[Trigger], check: Callable[[str, Trigger], None]
) -> list[RunSubject]:
    """Whose words a file answers to: a known subject's where both words are the same, else those of a new one.

    `check` raises where the words of a new subject of that name cannot be used.
    """
    known = known_subjects(layout)
    taken = {one.name for one in known}
    found: list[RunSubject] = []
    for trigger in triggers:
        words = (trigger.identifier, trigger.class_noun)
        same = [one.name for one in known if (one.identifier, one.class_noun) == words]
        # Names within one file differ, too.
        name = next((one for one in same if one not in {before.name for before in found}), None)
        if name is None:
            name = _free_name(trigger, title, taken)
            check(name, trigger)
        taken.add(name)
        found.append(RunSubject(name=name, class_noun=trigger.class_noun, identifier=trigger.identifier))
    return found


def known_subjects(layout: Layout) -> list[Subject | RunSubject]:
    """The project's subjects, then those of its runs, which may have been renamed or removed since."""
    return [*list_subjects(layout), *(one for run in list_runs(layout) for one in run.subjects)]


def check_rare_words(layout: Layout, *, allow_collision: bool) -> Callable[[str, Trigger], None]:
    """The rule for words that a LoRA answers to: raises Collision where tokens are another's and nobody allowed it."""

    def check(name: str, trigger: Trigger) -> None:
        check_new_words(layout, Subject(name=name, class_noun=trigger.class_noun), trigger.identifier, allow_collision)

    return check


def _free_name(trigger: Trigger, title: str, taken: set[str]) -> str:
    first = trigger.name or slug(trigger.class_noun, slug(title, "subject"))
    names = [first, *(f"{first}-{number}" for number in range(2, len(taken) + 3))]
    return next(one for one in names if one not in taken)
