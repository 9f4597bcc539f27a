"""Names of subjects, runs and other things that become a folder or a file: one pattern for all of them."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from dbcli.errors import Refused, UsageError

MOST_OF_NAME = 64
NAME_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_OF_NAME - 1}}}", re.ASCII)
# Windows opens a device for these, with any ending and in any case; a project folder may travel there.
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"] + [f"com{n}" for n in range(10)] + [f"lpt{n}" for n in range(10)]
)


def printable(text: str, limit: int = 80) -> str:
    """Return `text` safe to show in one line of a terminal: control and invisible ones become `\\u001b`.

    Longer texts are cut to `limit` characters and end in "…".
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if _is_visible(c) else _escape(c) for c in shown)


def check_name(name: str, what: str) -> str:
    """Return `name` unchanged if it may become a file name; `what` ("subject", "run") is used in the message.

    Raises Refused (exit 6) for a name that points elsewhere ("..", a slash, a drive), UsageError (exit 2)
    for any other name outside `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    """
    if not isinstance(name, str) or not name:
        raise UsageError(f"A {what} needs a name.")
    if name in (".", "..") or any(c in name for c in "/\\:\0"):
        raise Refused(
            f"The {what} name '{printable(name)}' points outside its folder.",
            hint="use letters, digits, '.', '_' and '-' only",
        )
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(
            f"The {what} name '{printable(name)}' cannot be used: 1 to 64 of A-Z a-z 0-9 . _ -, "
            "the first a letter or a digit.",
            hint=f"for example '{slug(name, fallback='my-dog')}'",
        )
    if name.split(".")[0].lower() in _WINDOWS_DEVICES or name.endswith("."):
        raise UsageError(
            f"The {what} name '{name}' cannot be used: Windows reserves it.",
            hint=f"for example '{name.rstrip('.').replace('.', '-')}-1'",
        )
    return name


def check_no_twin(name: str, what: str, others: Iterable[str]) -> None:
    """Raise Refused where one of `others` differs from `name` only in its case.

    macOS and Windows take such names for one folder, and the one would overwrite the other.
    """
    twin = next((one for one in others if one != name and one.casefold() == name.casefold()), None)
    if twin is not None:
        raise Refused(
            f"The {what} '{printable(twin)}' already exists, and '{printable(name)}' differs from it only in case: "
            "macOS and Windows would take both for one folder.",
            hint="choose another name",
        )


def names_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())


def slug(text: str, fallback: str, limit: int = 32) -> str:
    """Return a short file-name part of `a-z0-9-` for any text; `fallback` where nothing is left."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:limit].strip("-") or fallback


def without_control_characters(text: str) -> str:
    """Return `text` on one line: runs of white space become one space, control characters go."""
    folded = " ".join(text.split())
    return "".join(c for c in folded if _is_visible(c)).strip()


def _is_visible(character: str) -> bool:
    # Cc control, Cf invisible marks (bidi overrides), Cs lone surrogates, Zl/Zp line and paragraph ends.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character == "\u200d"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
