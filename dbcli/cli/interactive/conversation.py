"""The language of `generate --interactive`: a line is a prompt, or begins with a colon and is a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.workflows.generation.request import GenerateRequest

# command -> (the setting it changes, how its value is read, help)
SETTINGS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "seed": ("seed", int, "seed of the next image; later ones count up; -1: random"),
    "steps": ("steps", int, "sampling steps"),
    "n": ("count", int, "images per prompt"),
    "guidance": ("guidance", float, "guidance scale"),
    "sampler": ("sampler", str, "ddim, dpm++, euler, euler-a, unipc, pndm, …"),
    "eta": ("eta", float, "DDIM eta: fresh noise per step, 0 to 1"),
    "clip-skip": ("clip_skip", int, "text encoder layer, counted from the last: 1 is the last, 2 the last but one"),
    "negative": ("negative", str, "negative prompt; without text it is cleared"),
}
SWITCHES = {
    "grid": "also write one grid of all images, photos first: on or off",
    "show": "show images in this terminal: on or off",
}
ACTIONS = {
    "again": "repeat the last prompt with changed settings or, if none changed, with the next seeds",
    "settings": "show the current settings",
    "help": "show this list",
    "quit": "quit; so does Ctrl-D",
}
COMMANDS = [*SETTINGS, *SWITCHES, *ACTIONS]
HELP = (
    "A line is a prompt; {dog} stands for the subject's words. Tab completes; the arrow keys recall earlier lines.",
    *(f"  :{word + ' …':<12} {meaning}" for word, (_, _, meaning) in SETTINGS.items()),
    *(f"  :{word:<12} {meaning}" for word, meaning in (SWITCHES | ACTIONS).items()),
    "  Ctrl-C stops generating, not the program; a second Ctrl-C at once ends it.",
)


@dataclass(frozen=True)
class Line:
    """One line understood: what to do and with what."""

    action: str
    value: Any = None


def understood(line: str) -> Line:
    """Reads one line. Raises UsageError for an unknown command, or a value that does not fit it."""
    text = line.strip()
    if not text:
        return Line("nothing")
    if not text.startswith(":"):
        return Line("generate", text)
    word, _, value = text[1:].partition(" ")
    word, value = word.lower(), value.strip()
    if word in ("q", "exit"):
        word = "quit"
    if word in ACTIONS:
        return Line(word)
    if word in SWITCHES:
        if value not in ("on", "off"):
            raise UsageError(f":{word} takes on or off.")
        return Line(word, value == "on")
    if word in SETTINGS:
        return Line(word, _read(word, value))
    raise UsageError(f"There is no command :{word[:20]}.", hint=":help lists them; a prompt starts without a colon")


def with_setting(request: GenerateRequest, word: str, value: Any) -> GenerateRequest:
    """The request with one setting changed."""
    key = SETTINGS[word][0]
    return replace(request, seed=value) if key == "seed" else replace(request, options={**request.options, key: value})


def _read(word: str, value: str) -> Any:
    read = SETTINGS[word][1]
    try:
        found = read(value)
    except ValueError:
        kind = "a whole number" if read is int else "a number"
        raise UsageError(f":{word} takes {kind}, not '{value[:20]}'.", hint=f"for example :{word} 7") from None
    if word == "seed":
        from dbcli.workflows.generation.request import first_seed

        return first_seed(found, option=":seed")
    return found
