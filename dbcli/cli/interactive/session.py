"""`generate --interactive`: the model stays loaded, prompts come one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.cli.interactive.conversation import ACTIONS, SETTINGS, SWITCHES, Line, Options, understood, with_setting
from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import DreamboothError, Interrupted, UsageError

if TYPE_CHECKING:
    from dbcli.project.settings.profile_settings import DrawSettings
    from dbcli.workflows.generation.generate import Generated
    from dbcli.workflows.generation.request import GenerateRequest
    from dbcli.workflows.models.loaded import LoadedModel

# Gives the next line, or None at the end.
Reader = Callable[["Conversation"], str | None]
SIGINT_EXIT = 130


@dataclass
class Conversation:
    """One sitting: the loaded model, the request it was opened with, the options that hold now, what was generated."""

    model: LoadedModel
    request: GenerateRequest
    screen: Screen
    options: Options
    drawings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """The seed of the next first image."""
        from dbcli.workflows.generation.generate import first_usual_seed

        return first_usual_seed(self.model.profile) if self.options.seed is None else self.options.seed

    def settings(self, options: Options) -> DrawSettings:
        """The run's own settings with `options` on top; ConfigError names every fault."""
        from dbcli.workflows.setup.effective_settings import sampling_settings

        settings: DrawSettings = sampling_settings(self.model.profile, options.flags)
        return settings

    @property
    def summary(self) -> str:
        """The settings that hold, on one line."""
        settings = self.settings(self.options)
        return (
            f"seed {self.seed} · steps {settings.steps} · n {settings.count} · "
            f"guidance {settings.guidance:g} · {settings.sampler}"
        )


def sit_down(call: Invocation, request: GenerateRequest) -> None:
    """Loads the model and talks. Raises UsageError for prompts on the command line: they come line by line here."""
    from dbcli.workflows.completions import typed_seed
    from dbcli.workflows.generation.generate import open_model

    if request.prompts:
        raise UsageError("--interactive asks for its prompts.", hint="leave the prompt out, or --interactive")
    if request.like is not None:
        raise UsageError("--like draws once; it does not go with --interactive.")
    options = Options({key: value for key, value in request.options.items() if value is not None}, grid=request.grid)
    if request.seed is not None:
        options.seed = typed_seed(request.seed, "--seed")
    model = open_model(call.layout(), request, call.screen, offline=call.offline)
    converse(call, Conversation(model, request, call.screen, options))


def converse(call: Invocation, talk: Conversation, read: Reader | None = None) -> None:
    """Reads and obeys until the end. At a terminal a fault is told and the talk goes on; a script ends with it."""
    has_person = sys.stdin.isatty() and sys.stderr.isatty()
    reader = read or (_person(talk) if has_person else _script)
    if has_person:
        call.screen.note(f"Generating with {talk.model.title}. {_subjects(talk)}:help for help.")
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
    talk.screen.document({"run": talk.model.run, "drawings": talk.drawings})


def _obey(talk: Conversation, line: Line) -> bool:
    """Does what one line says; False to leave."""
    if line.action == "quit":
        return False
    if line.action == "draw":
        talk.options.prompt = line.value
        _generate(talk)
    elif line.action == "again":
        _again(talk)
    elif line.action in SETTINGS:
        changed = with_setting(talk.options, line.action, line.value)
        talk.settings(changed)
        talk.options = changed
        talk.screen.note(talk.summary)
    elif line.action in SWITCHES:
        setattr(talk.options, line.action, line.value)
        talk.screen.note(f"{line.action} {'on' if line.value else 'off'}")
    elif line.action == "settings":
        talk.screen.note(talk.summary)
    elif line.action == "help":
        _help(talk.screen)
    return True


def _generate(talk: Conversation) -> None:
    from dbcli.workflows.generation.generate import generate_with, generated_document

    options = talk.options
    assert options.prompt is not None
    options.is_generated = False
    request = replace(talk.request, prompts=[options.prompt], options=options.flags, seed=talk.seed, grid=options.grid)
    generated = generate_with(talk.model, request, talk.screen)
    options.is_generated = True
    talk.drawings.append(generated_document(generated))
    _show(talk, generated)


def _again(talk: Conversation) -> None:
    from dbcli.workflows.completions import following_seed

    if talk.options.prompt is None:
        talk.screen.note("Nothing was generated yet.")
        return
    if talk.options.is_generated:
        talk.options.seed = following_seed(talk.seed, talk.settings(talk.options).count)
    _generate(talk)


def _show(talk: Conversation, generated: Generated) -> None:
    from dbcli.cli.terminal.images import show_images

    if talk.options.show:
        show_images(talk.screen, [image.path for image in generated.images])
    for image in generated.images:
        talk.screen.line(f"  {_near(image.path)}  seed {image.recipe.seed}")
    if generated.grid is not None:
        talk.screen.line(f"  {_near(generated.grid)}  grid")


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


def _subjects(talk: Conversation) -> str:
    from dbcli.workflows.generation.generate import prompt_words

    names = [word for word in prompt_words(talk.model.record) if word.startswith("{")]
    return (
        f"In a prompt {' and '.join(names)} stand{'s' if len(names) == 1 else ''} for what it learnt. " if names else ""
    )


def _person(talk: Conversation) -> Reader:
    from dbcli.cli.interactive.prompt_line import line_reader
    from dbcli.workflows.generation.generate import prompt_words

    model = talk.model
    return line_reader(model.layout.prompt_history, model.run or "base", prompt_words(model.record))


def _script(talk: Conversation) -> str | None:
    line = sys.stdin.readline()
    return line if line else None
