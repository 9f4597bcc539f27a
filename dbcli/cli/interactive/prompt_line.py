"""The line a person types prompts on: history, completion, the current settings beneath."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output
from prompt_toolkit.styles import Style

from dbcli.cli.interactive.conversation import COMMANDS, SWITCHES

STYLE = Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack", "run": "bold", "arrow": "ansicyan"})


class WordCompleter(Completer):
    """Commands after a colon, their values, and the subjects' words anywhere in a prompt."""

    def __init__(self, words: Sequence[str], samplers: Sequence[str]) -> None:
        self._words, self._samplers = words, samplers

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor.lstrip()
        typed = before.rsplit(" ", 1)[-1]
        for word in self._candidates(before):
            if word.startswith(typed) and word != typed:
                yield Completion(word, start_position=-len(typed))

    def _candidates(self, before: str) -> Sequence[str]:
        if not before.startswith(":"):
            return self._words
        command, separator, _ = before[1:].partition(" ")
        if not separator:
            return [f":{word}" for word in COMMANDS]
        if command == "sampler":
            return self._samplers
        return ["on", "off"] if command in SWITCHES else []


def line_reader(history: Path, run: str, words: Sequence[str]) -> Callable[[str], str | None]:
    """Reads from the terminal, with the settings beneath; Ctrl-C clears the line, Ctrl-D ends."""
    from dbcli.workflows.completions import sampler_names

    line: PromptSession[str] = PromptSession(
        history=_history(history),
        completer=WordCompleter(words, sampler_names()),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        style=STYLE,
        # Results go to stdout, everything else to stderr.
        output=create_output(stdout=sys.stderr),
    )

    def read(settings: str) -> str | None:
        while True:
            try:
                return line.prompt([("class:run", run), ("class:arrow", " › ")], bottom_toolbar=f" {settings}")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    return read


def _history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
