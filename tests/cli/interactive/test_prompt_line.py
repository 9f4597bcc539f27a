"""What the Tab key completes on the line of `generate --interactive`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from dbcli.cli.interactive.conversation import COMMANDS
from dbcli.cli.interactive.prompt_line import WordCompleter

Run = Callable[..., Any]


def offered(text: str) -> list[str]:
    completer = WordCompleter(["{dog}", "sks dog", "sks"], ["ddim", "dpm++"])
    return [one.text for one in completer.get_completions(Document(text), CompleteEvent())]


def test_subjects_identifiers_commands_and_values_are_completed() -> None:
    assert offered("a {d") == ["{dog}"]
    assert offered("a sk") == ["sks dog", "sks"]
    assert offered(":se") == [":seed", ":settings"]
    assert offered(":sampler d") == ["ddim", "dpm++"]
    assert offered(":grid o") == ["on", "off"]
    assert offered(":seed 1") == []
    assert offered(":") == [f":{word}" for word in COMMANDS]
