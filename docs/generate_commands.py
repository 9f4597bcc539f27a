"""Writes docs/commands.md from the program's own help; with --check it only says whether that page is up to date.

python docs/generate_commands.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before typer is imported: help pages are plain text of one width on every machine.
os.environ.update({"TERMINAL_WIDTH": "100", "NO_COLOR": "1", "COLUMNS": "100"})

PAGE = Path(__file__).parent / "commands.md"
HEAD = """# Commands

Every command with its options, as `--help` prints them. This page is written by `make docs`; a test compares it with
the program.

Exit codes: 0 done · 1 a fault of dreambooth itself (the traceback is in a log) · 2 a wrong option or setting ·
3 your data (photos, prompts) · 4 a model, run or file is not there, or the hub is not to be reached · 5 the machine
(memory, disk, a failed compilation), a loss that diverged, or values that are not finite · 6 refused (unsafe file,
taken identifier, something in use) · 130 or 143 after Ctrl-C or a request to end, with a checkpoint written.
`dreambooth doctor` ends with 5 where it marks something of the machine as FAIL, else with 3 where something of the
project.

"""


def pages() -> Iterator[tuple[str, str]]:
    """Each command's words and its help, the program itself first, groups before their commands."""
    import typer

    from dbcli.cli.app import app

    yield from _walk("dreambooth", typer.main.get_command(app), None)


def text() -> str:
    """The whole page."""
    return HEAD + "\n".join(f"## {words}\n\n```text\n{page}\n```\n" for words, page in pages())


def _walk(words: str, command: Any, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.make_context(
        words.split()[-1] if parent else words, [], parent=parent, resilient_parsing=True, max_content_width=100
    )
    yield words, "\n".join(line.rstrip() for line in context.get_help().splitlines())
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(f"{words} {name}", inner, context)


def main() -> None:
    made = text()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == made else "docs/commands.md is old: make docs")
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
