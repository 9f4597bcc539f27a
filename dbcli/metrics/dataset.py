"""Reading a copy of the google/dreambooth dataset: its subjects, class nouns, photos and 25 + 25 prompts. No torch.

The folder holds `prompts_and_classes.txt` (a list `subject_name,class`, then two Python lists of `'a {0} {1} in the
snow'.format(unique_token, class_token)`) and a folder of photos per subject. Nothing of it is copied into the project.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from dbcli.errors import DataError
from dbcli.metrics.suites import Suite, SuitePrompt, short_label

LIST_FILE = "prompts_and_classes.txt"
SUITE_NAME = "dreambench"
_PHOTO_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_CALL = re.compile(r"^(?P<text>'[^']*'|\"[^\"]*\")\.format\(\s*unique_token\s*,\s*class_token\s*\)\s*,?$")


@dataclass(frozen=True)
class DatasetSubject:
    """One subject of the dataset: its class noun and its photos, sorted by name."""

    name: str
    class_noun: str
    photos: tuple[Path, ...]


@dataclass(frozen=True)
class Dataset:
    """The subjects found on disk, the names listed but missing, and the prompts as a suite."""

    subjects: tuple[DatasetSubject, ...]
    missing: tuple[str, ...]
    suite: Suite


def read_dataset(folder: Path) -> Dataset:
    """Read a dataset folder. Raises DataError when the list is missing or holds no subjects or prompts.

    A subject that is listed but has no folder or no photo is named in `missing`, for the caller to say and skip.
    """
    path = folder / LIST_FILE
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{folder} is not a copy of the google/dreambooth dataset: {LIST_FILE} cannot be read ({error}).",
            hint="--dataset DIR, the folder that contains prompts_and_classes.txt and the subjects' folders",
        ) from error
    classes = _classes(lines)
    things, creatures = _prompts_after(lines, "object prompts"), _prompts_after(lines, "live subject prompts")
    if not classes or not things or not creatures:
        raise DataError(
            f"{path}: found {len(classes)} subjects, {len(things)} + {len(creatures)} prompts; none may be 0."
        )
    subjects = [DatasetSubject(name, noun, _photos(folder / name)) for name, noun in classes.items()]
    about = "the prompts of google/dreambooth, read from a copy of the dataset"
    return Dataset(
        tuple(subject for subject in subjects if subject.photos),
        tuple(subject.name for subject in subjects if not subject.photos),
        Suite(SUITE_NAME, SUITE_NAME, about, any=(), live=creatures, object=things),
    )


def _classes(lines: list[str]) -> dict[str, str]:
    """Subject names with their class nouns, in the file's order; names that could leave the folder are passed over."""
    classes: dict[str, str] = {}
    for line in lines:
        if line.lower() == "prompts":
            break
        name, comma, noun = (part.strip() for part in line.partition(","))
        if comma and noun and name != "subject_name" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            classes[name] = noun
    return classes


def _prompts_after(lines: list[str], heading: str) -> tuple[SuitePrompt, ...]:
    """The prompts of the list under a heading, as templates with {identifier} and {class}."""
    lowered = [line.lower() for line in lines]
    if heading not in lowered:
        return ()
    prompts: list[SuitePrompt] = []
    for line in lines[lowered.index(heading) + 1 :]:
        if line.startswith("]"):
            break
        match = _CALL.match(line)
        if match:
            text: str = ast.literal_eval(match["text"])
            template = text.replace("{0}", "{identifier}").replace("{1}", "{class}")
            prompts.append(SuitePrompt(template, short_label(template), SUITE_NAME))
    return tuple(prompts)


def _photos(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in _PHOTO_ENDINGS and path.is_file()))
