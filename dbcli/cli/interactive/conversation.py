"""The language of `generate --interactive`: a line is a prompt, or begins with a colon and is a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dbcli.errors import UsageError

# command -> (the setting it changes, how its value is read, help)
SETTINGS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "seed": ("seed", int, "the seed of the next first image, the others count up from it; -1 is a random one"),
    "steps": ("steps", int, "sampler steps"),
    "n": ("count", int, "pictures a prompt"),
    "guidance": ("guidance", float, "how strongly the prompt is held to"),
    "sampler": ("sampler", str, "ddim, dpm++, euler, euler-a, unipc, pndm, …"),
    "eta": ("eta", float, "DDIM's fresh noise a step, 0 to 1"),
    "clip-skip": ("clip_skip", int, "layer of the text encoder, counted from the last: 1 the last, 2 the last but one"),
    "negative": ("negative", str, "what should not be there; nothing after it clears it"),
}
SWITCHES = {
    "grid": "also write one sheet of all pictures, photos first: on or off",
    "show": "show pictures in this terminal: on or off",
}
ACTIONS = {
    "again": "draw the last prompt with what was changed since, or else with the next seeds",
    "settings": "what holds now",
    "help": "this list",
    "quit": "leave; so does Ctrl-D",
}
COMMANDS = [*SETTINGS, *SWITCHES, *ACTIONS]


@dataclass
class Options:
    """What a person asked for so far; flags hold only what differs from the run's own settings.

    is_generated: the prompt was generated with exactly these settings, so that doing it once more needs other seeds.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    prompt: str | None = None
    grid: bool = False
    show: bool = True
    is_generated: bool = False


@dataclass(frozen=True)
class Line:
    """One line understood: what to do and with what."""

    action: str
    value: Any = None


def understood(line: str) -> Line:
    """Reads one line. Raises UsageError for a command that is none, or a value that does not fit it."""
    text = line.strip()
    if not text:
        return Line("nothing")
    if not text.startswith(":"):
        return Line("draw", text)
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
    raise UsageError(f"There is no command :{word[:20]}.", hint=":help lists them; a prompt begins without a colon")


def with_setting(options: Options, word: str, value: Any) -> Options:
    """The options with one setting changed; the old ones stay as they are, for a value that turns out not to fit."""
    key = SETTINGS[word][0]
    if key == "seed":
        return Options(dict(options.flags), value, options.prompt, options.grid, options.show)
    return Options(options.flags | {key: value}, options.seed, options.prompt, options.grid, options.show)


def _read(word: str, value: str) -> Any:
    read = SETTINGS[word][1]
    try:
        found = read(value)
    except ValueError:
        kind = "a whole number" if read is int else "a number"
        raise UsageError(f":{word} takes {kind}, not '{value[:20]}'.", hint=f"for example :{word} 7") from None
    if word == "seed":
        from dbcli.workflows.completions import typed_seed

        return typed_seed(found, ":seed")
    return found
