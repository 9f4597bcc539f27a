"""What a person sees: results on stdout, everything else on stderr, a person's own text never read as markup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dbcli.cli.bars import Bar, Bars

# What a terminal would obey instead of show: control characters but tab and line end, marks that turn the writing
# direction, lone halves of characters.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Verdict of a check -> its mark and the mark's colour.
MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "fault": ("FAIL", "red bold")}
FINDING_COLUMNS = 16


def visible(text: str) -> str:
    """The text with what a terminal would obey written as `\\u001b`, which inside JSON means the same."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Screen:
    """The terminal of one command; a workflow's Progress.

    quiet drops notes and bars, never warnings or results. as_json prints one document instead of tables.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._document_printed = False

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Bar]:
        """A bar on stderr while the block runs; only its last state where stderr is no terminal."""
        with Bars(self.err, disable=self.quiet) as bars:
            yield bars.begin(visible(title), total)

    def note(self, text: str) -> None:
        if not self.quiet:
            self._tell(Text(visible(text)))

    def warn(self, text: str) -> None:
        self._tell(Text("Warning: ", style="yellow bold") + Text(visible(text)))

    def line(self, text: str, style: str = "") -> None:
        """One line of the result."""
        if not self.as_json:
            self.out.print(Text(visible(text), style=style))

    def command(self, words: str) -> None:
        """A command line to copy: alone on its line, never wrapped."""
        self.line(f"  {words}", style="cyan")

    def finding(self, verdict: str, name: str, found: str, fix: str | None) -> None:
        """One finding of the doctor: a mark that reads without colour, what was found, how to mend it."""
        if self.as_json:
            return
        mark, style = MARKS[verdict]
        table = Table.grid(padding=(0, 1))
        for width in (2, 4, FINDING_COLUMNS):
            table.add_column(width=width, overflow="fold")
        table.add_column(overflow="fold")
        table.add_row("", Text(mark, style=style), Text(visible(name)), Text(visible(found)))
        if fix:
            table.add_row("", "", "", Text(f"→ {visible(fix)}", style="dim" if verdict == "good" else ""))
        self.out.print(table, soft_wrap=False)

    def table(
        self,
        title: str | None,
        headers: Sequence[str],
        rows: Sequence[Sequence[object]],
        flexible: str | None = None,
    ) -> None:
        """A table of the result; where it is too wide only the `flexible` column is broken, if one is named."""
        if self.as_json:
            return
        table = Table(
            title=Text(visible(title)) if title else None,
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=None,
            pad_edge=False,
        )
        table.show_header = any(headers)
        for header in headers:
            table.add_column(header, overflow="fold", no_wrap=flexible is not None and header != flexible)
        for row in rows:
            table.add_row(*[Text("" if cell is None else visible(str(cell))) for cell in row])
        self.out.print(table, soft_wrap=False)

    def document(self, document: Any) -> None:
        """The result as JSON, when that was asked for."""
        if self.as_json and not self._document_printed:
            self._document_printed = True
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
            sys.stdout.write(visible(text) + "\n")
            sys.stdout.flush()

    def error(self, message: str, hint: str | None) -> None:
        """What went wrong and what to type next."""
        self._tell(Text("Error: ", style="red bold") + Text(visible(message)))
        if hint:
            # A hint is mostly a command to copy: whole, wherever the line ends.
            self.err.print(Text("  → ", style="bold") + Text(visible(hint)))

    def _tell(self, text: Text) -> None:
        """Words for a person: broken between words on a terminal, left whole in a file that is searched."""
        self.err.print(text, soft_wrap=not self.err.is_terminal)
