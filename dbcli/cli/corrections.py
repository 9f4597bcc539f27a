"""What was most likely meant where a command line has a slip: the whole line again, to be copied."""

import difflib
import re
import shlex
from collections.abc import Sequence

from dbcli.cli.arguments import project_of
from dbcli.hints import command, nearest

# Which option a name without one belongs to.
NAMED_BY = {"train": "--subject", "bench": "--subject", "eval": "--run", "reg make": "--class"}
# "stpes" and "steps" are 0.8 alike, "seed" and "set" 0.57.
LIKE_ENOUGH = 0.75
_ADDED = re.compile(r"add (--\S.*)")
# More than one way on, or a name that a person has to choose.
_LEFT_OPEN = re.compile(r", |\b(?:NAME|NOUN|RUN)\b")
_STRAY = re.compile(r"unexpected extra argument\S* \((.*)\)")
_POSSIBLE = re.compile(r"No such option:? (\S+) \(Possible options: (.*)\)")
_NEAR = re.compile(r"No such (?:command|option):? '?([^\s'.]+)'?\.?\s+\(?Did you mean:? '?([^\s'?,)]+)")


def with_word_replaced(words: Sequence[str], given: str, meant: str) -> str | None:
    """The command line with a name corrected wherever it stands: alone, in a list, behind `=` or in braces."""
    whole = re.compile(rf"(?<![A-Za-z0-9._-]){re.escape(given)}(?![A-Za-z0-9._-])")
    # Not the command itself: `train` may be a subject's name too.
    corrected = [*words[:1], *(whole.sub(meant.replace("\\", r"\\"), word) for word in words[1:])]
    return command("dreambooth", *corrected) if list(words) != corrected else None


def with_options_added(words: Sequence[str], hint: str) -> str | None:
    """The command line with what a hint says to add, "add --token pln"; None for a hint that says anything else."""
    said = _ADDED.fullmatch(hint)
    if said is None or _LEFT_OPEN.search(hint):
        return None
    # What stands behind `--` is no option.
    end = words.index("--") if "--" in words else len(words)
    return command("dreambooth", *words[:end], *shlex.split(said[1]), *words[end:])


def corrected(words: Sequence[str], path: str, message: str) -> str | None:
    """The command line without the slip that the parser found; `path` is the command as called, "dreambooth train"."""
    found = _NEAR.search(message) or _POSSIBLE.search(message)
    if found is None:
        return _with_option_added(words, path, message)
    given, options = found[1], found[2].split(", ")
    meant = _option_meant(given, options) if given.startswith("-") else options[0]
    if meant is None:
        return None
    replaced = [meant + word[len(given) :] if word.partition("=")[0] == given else word for word in words]
    return command("dreambooth", *replaced)


def _option_meant(given: str, options: Sequence[str]) -> str | None:
    """The option that is misspelt or cut short; None where one is merely alike: --dry-run is no --run."""
    typed = given.lstrip("-").casefold()

    def likeness(option: str) -> float:
        name = option.lstrip("-")
        return 1.0 if name.startswith(typed) else difflib.SequenceMatcher(None, typed, name).ratio()

    # The parser sorts them by the alphabet: the nearest one, and of two as near the shorter.
    best = max(sorted(options, key=len), key=likeness)
    return best if likeness(best) >= LIKE_ENOUGH else None


def _with_option_added(words: Sequence[str], path: str, message: str) -> str | None:
    """The command line with its option before each name that stands alone, `train rex`; None for any other slip."""
    from dbcli.workflows.completions import subject_names

    found, option = _STRAY.search(message), NAMED_BY.get(path.partition(" ")[2])
    if found is None or option is None:
        return None
    strays = found[1].split()
    known = subject_names(project_of(words)) if option == "--subject" else strays
    names = [stray if stray in known else nearest(stray, known) or stray for stray in strays]
    rest = [word for word in words if word not in strays]
    return command("dreambooth", *rest, option, ",".join(names))
