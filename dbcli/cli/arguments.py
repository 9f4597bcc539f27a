"""Options that every command takes, wherever they stand on the line, and the one option whose value may be left out."""

import re
from collections.abc import Sequence
from pathlib import Path

PROJECT = "--project"
FLAGS = ("--json", "--quiet", "--yes", "--offline")
LONG_NAMES = {"-q": "--quiet", "-y": "--yes", "-C": PROJECT}
NEWEST = "newest"
_JOINED = re.compile(r"-[qy]{2,}")


def arranged(arguments: Sequence[str]) -> list[str]:
    """The same command line with the options for all commands first, and `--resume` given a value.

    Everything after `--` is left alone.
    """
    general, own = _split(arguments)
    return general + own


def general_options(arguments: Sequence[str]) -> list[str]:
    """The options for all commands by their long names, before any parser has run; `--project` before its value."""
    return _split(arguments)[0]


def project_of(arguments: Sequence[str]) -> Path | None:
    """The folder that -C names, before any parser has run."""
    general = general_options(arguments)
    return Path(general[general.index(PROJECT) + 1]) if PROJECT in general else None


def names_in(given: Sequence[str] | None) -> list[str]:
    """The names of an option that takes several, with commas or repeated."""
    return [name for text in given or [] for name in text.split(",") if name]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    general: list[str] = []
    own: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            own += [word, *rest]
            break
        long_name = LONG_NAMES.get(word, word)
        if long_name in FLAGS:
            general.append(long_name)
        elif long_name == PROJECT and rest:
            general += [PROJECT, rest.pop(0)]
        elif word.startswith(f"{PROJECT}="):
            general += [PROJECT, word.partition("=")[2]]
        elif word.startswith("-C") and word != "-C":
            general += [PROJECT, word[2:]]
        elif _JOINED.fullmatch(word):
            rest[:0] = [f"-{letter}" for letter in word[1:]]
        elif word == "--resume" and (not rest or rest[0].startswith("-")):
            own += [word, NEWEST]
        else:
            own.append(word)
    return general, own
