"""Help pages in a person's words: `PHOTO...` and not `PHOTO... <list[Path]>`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperGroup


class Program(TyperGroup):
    """The program's commands, with types of Python taken out of their help."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        _make_readable(self)


def _make_readable(command: Any) -> None:
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            # Its name says what it is.
            setattr(parameter, "display_type_rich", lambda ctx: None)  # noqa: B010
        elif parameter.type_descriptor.is_list:
            setattr(parameter, "display_type", lambda ctx: "<str>…")  # noqa: B010
    for inner in getattr(command, "commands", {}).values():
        _make_readable(inner)
