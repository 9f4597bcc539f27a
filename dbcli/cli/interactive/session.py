"""`generate --interactive`: the model stays loaded, prompts come one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.cli.interactive.conversation import ACTIONS, SETTINGS, SWITCHES, Line, Wishes, understood, with_setting
from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import DreamboothError, Interrupted, UsageError

if TYPE_CHECKING:
    from dbcli.workflows.generation.generate import Drawn
    from dbcli.workflows.generation.request import GenerateRequest
    from dbcli.workflows.generation.session import Session

# Gives the next line, or None at the end.
Reader = Callable[["Conversation"], str | None]
SIGINT_EXIT = 130


@dataclass
class Conversation:
    """One sitting: the loaded model, what is wished for, and what was drawn."""

    session: Session
    screen: Screen
    wishes: Wishes
    drawings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The settings that hold, on one line."""
        settings = self.session.settings(self.wishes.flags)
        seed = self.session.seed if self.wishes.seed is None else self.wishes.seed
        return (
            f"seed {seed} · steps {settings.steps} · n {settings.count} · "
            f"guidance {settings.guidance:g} · {settings.sampler}"
        )


def sit_down(call: Invocation, request: GenerateRequest) -> None:
    """Loads the model and talks. Raises UsageError for prompts on the command line: they come line by line here."""
    from dbcli.workflows.completions import typed_seed
    from dbcli.workflows.generation.session import open_session

    if request.prompts:
        raise UsageError("--interactive asks for its prompts.", hint="leave the prompt out, or --interactive")
    if request.like is not None:
        raise UsageError("--like draws once; it does not go with --interactive.")
    flags = {key: value for key, value in request.flags.items() if value is not None}
    seed = None if request.seed is None else typed_seed(request.seed, "--seed")
    session = open_session(call.layout(), request, call.screen, offline=call.offline)
    converse(call, session, Wishes(flags, seed, grid=request.grid))


def converse(call: Invocation, session: Session, wishes: Wishes, read: Reader | None = None) -> None:
    """Reads and obeys until the end. At a terminal a fault is told and the talk goes on; a script ends with it."""
    talk = Conversation(session, call.screen, wishes)
    has_person = sys.stdin.isatty() and sys.stderr.isatty()
    reader = read or (_person(talk) if has_person else _script)
    if has_person:
        call.screen.note(f"Drawing with {session.title}. {_subjects(session)}:help for help.")
    while (line := reader(talk)) is not None:
        try:
            if not _obey(talk, understood(line)):
                break
        except Interrupted as stopped:
            # Ctrl-C stops a drawing; a request to end, and Ctrl-C in a script, end the program.
            if not has_person or stopped.exit_code != SIGINT_EXIT:
                raise
            talk.screen.note("Stopped. Pictures that were finished are kept.")
        except DreamboothError as error:
            if not has_person:
                raise
            talk.screen.error(error.message, error.hint)
    talk.screen.document({"run": session.run, "drawings": talk.drawings})


def _obey(talk: Conversation, line: Line) -> bool:
    """Does what one line says; False to leave."""
    if line.action == "quit":
        return False
    if line.action == "draw":
        talk.wishes.prompt = line.value
        _draw(talk)
    elif line.action == "again":
        _again(talk)
    elif line.action in SETTINGS:
        changed = with_setting(talk.wishes, line.action, line.value)
        talk.session.settings(changed.flags)
        talk.wishes = changed
        talk.screen.note(talk.summary)
    elif line.action in SWITCHES:
        setattr(talk.wishes, line.action, line.value)
        talk.screen.note(f"{line.action} {'on' if line.value else 'off'}")
    elif line.action == "settings":
        talk.screen.note(talk.summary)
    elif line.action == "help":
        _help(talk.screen)
    return True


def _draw(talk: Conversation) -> None:
    from dbcli.workflows.generation.generate import drawn_document

    wishes, session = talk.wishes, talk.session
    seed = session.seed if wishes.seed is None else wishes.seed
    assert wishes.prompt is not None
    wishes.is_drawn = False
    drawn = session.draw(wishes.prompt, wishes.flags, seed, talk.screen, grid=wishes.grid)
    wishes.is_drawn = True
    talk.drawings.append(drawn_document(drawn))
    _show(talk, drawn)


def _again(talk: Conversation) -> None:
    from dbcli.workflows.completions import following_seed

    wishes = talk.wishes
    if wishes.prompt is None:
        talk.screen.note("Nothing was drawn yet.")
        return
    if wishes.is_drawn:
        seed = talk.session.seed if wishes.seed is None else wishes.seed
        wishes.seed = following_seed(seed, talk.session.settings(wishes.flags).count)
    _draw(talk)


def _show(talk: Conversation, drawn: Drawn) -> None:
    from dbcli.cli.terminal.images import show_images

    if talk.wishes.show:
        show_images(talk.screen, [image.path for image in drawn.images])
    for image in drawn.images:
        talk.screen.line(f"  {_near(image.path)}  seed {image.recipe.seed}")
    if drawn.grid is not None:
        talk.screen.line(f"  {_near(drawn.grid)}  grid")


def _near(path: Path) -> Path:
    """The path from here where it lies below: short enough to read, and right to click."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _help(screen: Screen) -> None:
    screen.note("A line is a prompt; {dog} stands for the subject's words. Tab completes, the arrows bring lines back.")
    for word, (_, _, meaning) in SETTINGS.items():
        screen.note(f"  :{word + ' …':<12} {meaning}")
    for word, meaning in (SWITCHES | ACTIONS).items():
        screen.note(f"  :{word:<12} {meaning}")
    screen.note("  Ctrl-C stops a drawing, not the program; a second Ctrl-C at once ends it.")


def _subjects(session: Session) -> str:
    names = [word for word in session.words() if word.startswith("{")]
    return (
        f"In a prompt {' and '.join(names)} stand{'s' if len(names) == 1 else ''} for what it learnt. " if names else ""
    )


def _person(talk: Conversation) -> Reader:
    from dbcli.cli.interactive.prompt_line import line_reader

    layout = talk.session.layout
    return line_reader(layout.prompt_history, talk.session.run or "base", talk.session.words())


def _script(talk: Conversation) -> str | None:
    line = sys.stdin.readline()
    return line if line else None
