"""The command line of this process, to be kept in records and typed again."""

import sys
from collections.abc import Sequence

from dbcli.hints import command
from dbcli.project.files.names import printable

MOST_CHARACTERS = 2000


def typed_command(words: Sequence[str] | None = None) -> str:
    """What can be pasted into a shell, without the project's folder, inside which it is typed.

    `words` are those after the program's name, this process's own if None.
    """
    kept: list[str] = []
    rest = iter(sys.argv[1:] if words is None else words)
    for word in rest:
        if word in ("-C", "--project"):
            next(rest, None)
        elif not word.startswith(("--project=", "-C")):
            kept.append(word)
    return printable(command("dreambooth", *kept), MOST_CHARACTERS)
