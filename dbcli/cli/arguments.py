"""Options that every command takes, wherever they stand on the line, and the one option whose value may be left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FLAGS = {
    "--json": "--json",
    "--quiet": "--quiet",
    "-q": "--quiet",
    "--yes": "--yes",
    "-y": "--yes",
    "--offline": "--offline",
}
WITH_VALUE = ("-C", "--project")
NEWEST = "newest"


def arranged(arguments: Sequence[str]) -> list[str]:
    """The same command line with the options for all commands first, and `--resume` given a value.

    Everything after `--` is left alone.
    """
    own: list[str] = []
    general: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            own += [word, *rest]
            break
        if word in FLAGS:
            general.append(FLAGS[word])
        elif word in WITH_VALUE and rest:
            general += ["--project", rest.pop(0)]
        elif word.startswith("--project="):
            general.append(word)
        elif word == "--resume" and (not rest or rest[0].startswith("-")):
            own += [word, NEWEST]
        else:
            own.append(word)
    return general + own


def names_in(given: Sequence[str] | None) -> list[str]:
    """The names of an option that takes several, with commas or repeated."""
    return [name for text in given or [] for name in text.split(",") if name]


def project_of(arguments: Sequence[str]) -> Path | None:
    """The folder that -C names, before any parser has run."""
    general = arranged(arguments)
    place = next((index for index, word in enumerate(general) if word.startswith("--project")), None)
    if place is None or "--" in general[:place]:
        return None
    name, has_value, value = general[place].partition("=")
    if has_value:
        return Path(value)
    return Path(general[place + 1]) if name == "--project" and place + 1 < len(general) else None


def is_offline(arguments: Sequence[str]) -> bool:
    """Whether `--offline` is among the options, before any parser has run."""
    words = list(arguments)
    return "--offline" in (words[: words.index("--")] if "--" in words else words)
