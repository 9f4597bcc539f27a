"""What a person sees: results on stdout, everything else on stderr, a person's own text never read as markup."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


class Bar:
    """One Rich bar with words beside it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1) -> None:
        self._progress.advance(self._task, amount)

    def tell(self, text: str) -> None:
        self._progress.update(self._task, told=escape(text))


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
        """A bar on stderr while the block runs; only a line at its end where stderr is no terminal."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[told]}"),
        )
        with Progress(*columns, console=self.err, disable=self.quiet, refresh_per_second=8) as progress:
            yield Bar(progress, progress.add_task(title, total=total, told=""))

    def note(self, text: str) -> None:
        if not self.quiet:
            self.err.print(Text(text))

    def warn(self, text: str) -> None:
        self.err.print(Text("Warning: ", style="yellow bold") + Text(text))

    def line(self, text: str, style: str = "") -> None:
        """One line of the result."""
        if not self.as_json:
            self.out.print(Text(text, style=style))

    def table(self, title: str | None, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of the result; numbers are right-aligned by being shown as given."""
        if self.as_json:
            return
        table = Table(
            title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
        )
        table.show_header = any(headers)
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in rows:
            table.add_row(*[Text("" if cell is None else str(cell)) for cell in row])
        self.out.print(table, soft_wrap=False)

    def document(self, document: Any) -> None:
        """The result as JSON, when that was asked for."""
        if self.as_json and not self._document_printed:
            self._document_printed = True
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
            sys.stdout.flush()

    def error(self, message: str, hint: str | None) -> None:
        """What went wrong and what to type next."""
        self.err.print(Text("Error: ", style="red bold") + Text(message))
        if hint:
            self.err.print(Text("  → ", style="bold") + Text(hint))
