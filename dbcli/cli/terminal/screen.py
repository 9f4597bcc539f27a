"""What a person sees: results on stdout, everything else on stderr, a person's own text never read as markup."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from dbcli.cli.terminal.bars import Bar, Bars
from dbcli.cli.terminal.tables import Cell, Column, lay_out, plain_lines, set_out, unpadded
from dbcli.hints import elsewhere, for_project

# What a terminal would obey instead of show: control characters but tab and line end, marks that turn the writing
# direction, lone halves of characters.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# The width of what has none.
UNBOUNDED = 10_000


def visible(text: str) -> str:
    """The text with what a terminal would obey written as `\\u001b`, which inside JSON means the same."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _columns(columns: Sequence[str | Column]) -> list[Column]:
    return [Column(one) if isinstance(one, str) else one for one in columns]


def _cells(rows: Sequence[Sequence[object]]) -> list[list[Cell]]:
    return [
        [cell if isinstance(cell, Text) else "" if cell is None else visible(str(cell)) for cell in row] for row in rows
    ]


class Screen:
    """The terminal of one command; a workflow's Progress.

    quiet drops notes and bars, never warnings or results. as_json prints one document instead of tables.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, project: Path | None = None) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.project = elsewhere(project)
        # A file or a pipe, which are searched, have no width: a line ends where it ends.
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNBOUNDED
        self.out = Console(file=sys.stdout, highlight=False, soft_wrap=True, width=width)
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._document_printed = False

    @contextmanager
    def stage(self, title: str, total: int, parts: int = 1) -> Iterator[Bar]:
        """A bar on stderr while the block runs; only its last state where stderr is no terminal."""
        with Bars(self.err, disable=self.quiet) as bars:
            bar = bars.begin(visible(title), total, parts)
            yield bar
            bar.end()

    def note(self, *texts: str) -> None:
        for text in () if self.quiet else texts:
            self._tell(Text(visible(text)))

    def warn(self, *texts: str) -> None:
        for text in texts:
            self._tell(Text("Warning: ", style="yellow bold") + Text(visible(text)))

    def line(self, text: str, style: str = "") -> None:
        """One line of the result."""
        if not self.as_json:
            self.out.print(Text(visible(text), style=style))

    def next(self, command: str) -> None:
        """The command that a person most likely types next."""
        self.line(f"Next: {for_project(command, self.project)}", style="dim")

    def files(self, **paths: object) -> None:
        """Where the files of the result lie, each under its title; None for one that was not written."""
        for title, path in paths.items():
            if path is not None:
                self.line(f"{title}: {path}")

    def prose(self, text: str, style: str = "dim") -> None:
        """Words of the result without a command or path to copy: broken between words on a terminal."""
        if not self.as_json:
            self.out.print(Text(visible(text), style=style), soft_wrap=not self.out.is_terminal)

    def command(self, words: str) -> None:
        """A command line to copy: alone on its line, never wrapped."""
        self.line(f"  {for_project(words, self.project)}", style="cyan")

    def table(
        self,
        title: str | None,
        columns: Sequence[str | Column],
        rows: Sequence[Sequence[object]],
        *,
        empty: str | None = None,
    ) -> None:
        """A listing of the result: no word is broken; columns that find no room are left out, and named beneath.

        A cell of Text keeps its colours; it is never a person's own words. `empty` is said in place of no rows.
        """
        if self.as_json:
            return
        if empty and not rows:
            self.line(for_project(empty, self.project))
            return
        wanted, cells = _columns(columns), _cells(rows)
        layout = lay_out(wanted, cells, self.out.width)
        if title:
            self.out.print(Text(visible(title), style="bold"), soft_wrap=not self.out.is_terminal)
        plain = plain_lines(cells, wanted, layout) if layout.total <= self.out.width else None
        lines = self.out.render_lines(set_out(wanted, cells if plain is None else [], layout), pad=False)
        for line in unpadded(lines):
            self.out.print(line)
        if plain:
            self.out.print(Text("\n".join(plain)), no_wrap=True, crop=False)
        if layout.left_out:
            text = f"No room for {', '.join(layout.left_out)}: a wider terminal or --json shows all."
            self.out.print(Text(text, style="dim"), soft_wrap=False)

    def facts(self, title: str | None, rows: Sequence[tuple[str, object]]) -> None:
        """What is known of one thing, a line each; what is empty is left out."""
        self.table(title, ("", Column("", wraps=True, least=16)), [row for row in rows if row[1]])

    def fits(self, columns: Sequence[str | Column], rows: Sequence[Sequence[object]]) -> bool:
        """Whether a table of these columns would be shown whole."""
        return lay_out(_columns(columns), _cells(rows), self.out.width).is_whole

    def document(self, document: Any) -> None:
        """The result as JSON, when that was requested."""
        if self.as_json and not self._document_printed:
            self._document_printed = True
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
            sys.stdout.write(visible(text) + "\n")
            sys.stdout.flush()

    def error(self, message: str, hint: str | None) -> None:
        """What went wrong and what to type next."""
        self._end(Text("Error: ", style="red bold") + Text(visible(message)), hint)

    def stopped(self, message: str, hint: str | None) -> None:
        """That the work was stopped on purpose, and what goes on with it; said even when quiet."""
        self._end(Text(visible(message)), hint)

    def _end(self, text: Text, hint: str | None) -> None:
        self._tell(text)
        if hint:
            # A hint is mostly a command to copy: whole, wherever the line ends.
            self.err.print(Text("  → ", style="bold") + Text(visible(for_project(hint, self.project))))

    def retry(self, message: str, hint: str | None) -> None:
        """Why an answer cannot be taken; the question comes again."""
        self._end(Text(visible(message), style="yellow"), hint)

    def _tell(self, text: Text) -> None:
        """Words for a person: broken between words on a terminal, left whole in a file that is searched."""
        self.err.print(text, soft_wrap=not self.err.is_terminal)
