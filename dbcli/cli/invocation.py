"""What every command knows of how it was called: the project, how to speak, whether it may ask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dbcli.cli.terminal.questions import agrees_to, answer_to
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import DreamboothError, Refused, UsageError
from dbcli.hints import quoted

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout


@dataclass
class Invocation:
    """One call of the program."""

    project: Path | None = None
    yes: bool = False
    offline: bool = False
    screen: Screen = field(default_factory=Screen)

    @property
    def may_ask(self) -> bool:
        """Whether a person sits there: both ends are a terminal, and neither --yes nor --json was given."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.yes and not self.screen.as_json

    @cached_property
    def layout(self) -> Layout:
        """The project meant: -C, else the nearest parent folder that is one."""
        from dbcli.workflows.setup.open import open_project

        return open_project(self.project)

    def wanted(
        self,
        value: str | None,
        option: str,
        question: str,
        default: Callable[[], str | None] | None = None,
        *,
        check: Callable[[str], object] | None = None,
        hint: str | None = None,
    ) -> str:
        """A value the command needs: given, or asked for on a terminal, or exit 2 naming the option.

        What `check` raises of an answer is told at once, and the question comes again. `hint` is what to type where
        nothing can be proposed, "add --repo NAME".
        """
        if value:
            return value
        proposal = default() if default is not None else None
        while self.may_ask:
            answer = answer_to(question, proposal)
            try:
                if check is not None:
                    check(answer)
            except DreamboothError as error:
                self.screen.retry(error.message, error.hint)
                continue
            return answer
        if self.yes and proposal:
            return proposal
        added = f"add {option} {quoted(proposal)}" if proposal else hint or f"add {option}"
        raise UsageError(f"{option} is missing.", hint=added)

    def agree(self, question: str, refusal: str) -> None:
        """Raises Refused (exit 6) unless a person agrees."""
        if not self.sure(question):
            raise Refused(refusal, hint="add --yes")

    def sure(self, question: str) -> bool:
        """Whether a person agrees; --yes agrees beforehand, without a terminal nobody does."""
        if self.yes:
            return True
        return self.may_ask and agrees_to(question)


def of(context: typer.Context) -> Invocation:
    """The invocation a command's Typer context carries."""
    return context.find_object(Invocation) or Invocation()
