"""`generate --interactive`: the model stays loaded, prompts come one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.cli.interactive.conversation import HELP, SETTINGS, SWITCHES, Line, understood, with_setting
from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.questions import woken_for_signals
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import DreamboothError, Interrupted, UsageError

if TYPE_CHECKING:
    from dbcli.project.settings.profile_settings import DrawSettings
    from dbcli.workflows.generation.request import GenerateRequest
    from dbcli.workflows.models.loaded import LoadedModel

SIGINT_EXIT = 130


@dataclass
class Conversation:
    """One sitting: the loaded model, what is asked of it, and what was generated.

    The request's options hold only what differs from the run's own settings. is_done: the prompt was generated with
    exactly these settings, so that the same again needs other seeds.
    """

    model: LoadedModel
    screen: Screen
    request: GenerateRequest
    prompt: str | None = None
    switches: dict[str, bool] = field(default_factory=dict)
    is_done: bool = False
    generated: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """The seed of the next first image."""
        from dbcli.workflows.generation.generate import first_usual_seed

        return first_usual_seed(self.model.profile) if self.request.seed is None else self.request.seed

    def settings(self, request: GenerateRequest) -> DrawSettings:
        """The run's own settings with the request's on top; ConfigError names every fault."""
        from dbcli.workflows.setup.effective_settings import sampling_settings

        return sampling_settings(self.model.profile, request.options)

    @property
    def summary(self) -> str:
        """The current settings, on one line."""
        settings = self.settings(self.request)
        return (
            f"seed {self.seed} · steps {settings.steps} · n {settings.count} · "
            f"guidance {settings.guidance:g} · {settings.sampler}"
        )

    def again(self) -> None:
        """Generates the last prompt with what was changed since, or else with the next seeds."""
        from dbcli.workflows.generation.request import first_of_next

        if self.prompt is None:
            self.screen.note("Nothing has been generated yet.")
            return
        if self.is_done:
            count = self.settings(self.request).count
            self.request = replace(self.request, seed=first_of_next(self.seed, count))
        self.generate(self.prompt)

    def generate(self, prompt: str) -> None:
        """Generates one prompt and shows where the images lie."""
        from dbcli.cli.terminal.images import show_images
        from dbcli.workflows.generation.generate import generate_with, generated_document

        self.prompt, self.is_done = prompt, False
        request = replace(self.request, prompts=[prompt], seed=self.seed, grid=self.switches["grid"])
        generated = generate_with(self.model, request, self.screen)
        self.is_done = True
        self.generated.append(generated_document(generated))
        if self.switches["show"]:
            show_images(self.screen, [image.path for image in generated.images])
        for image in generated.images:
            self.screen.line(f"  {_near(image.path)}  seed {image.recipe.seed}")
        self.screen.files(Grid=generated.grid and _near(generated.grid))


def sit_down(call: Invocation, request: GenerateRequest) -> None:
    """Loads the model and talks. Raises UsageError for prompts on the command line: they come line by line here."""
    from dbcli.workflows.generation.generate import open_model
    from dbcli.workflows.generation.request import first_seed

    if request.prompts:
        raise UsageError("--interactive asks for its prompts.", hint="leave the prompt out, or --interactive")
    if request.like is not None:
        raise UsageError("--like generates once; it cannot be combined with --interactive.")
    options = {key: value for key, value in request.options.items() if value is not None}
    seed = None if request.seed is None else first_seed(request.seed)
    model = open_model(call.layout, request, call.screen, offline=call.offline)
    request = replace(request, options=options, seed=seed)
    _converse(Conversation(model, call.screen, request, switches={"grid": request.grid, "show": True}))


def _converse(talk: Conversation) -> None:
    """Reads and obeys until the end. At a terminal an error is shown and the talk goes on; a script ends with it."""
    from dbcli.workflows.generation.generate import prompt_words

    has_person = sys.stdin.isatty() and sys.stderr.isatty()
    words = prompt_words(talk.model.record)
    read: Callable[[str], str | None] = _script
    if has_person:
        from dbcli.cli.interactive.prompt_line import line_reader

        read = line_reader(talk.model.layout.prompt_history, talk.model.run or "base", words)
        names = " and ".join(word for word in words if word.startswith("{"))
        meaning = f"In a prompt {names} means what it learnt. " if names else ""
        talk.screen.note(f"Generating with {talk.model.title}. {meaning}:help for help.")
    while (line := read(talk.summary)) is not None:
        try:
            if not _obey(talk, understood(line)):
                break
        except Interrupted as stopped:
            # Ctrl-C stops one prompt's images; a request to end, and Ctrl-C in a script, end the program.
            if not has_person or stopped.exit_code != SIGINT_EXIT:
                raise
            talk.screen.note("Stopped. Finished images are kept.")
        except DreamboothError as error:
            if not has_person:
                raise
            talk.screen.error(error.message, error.hint)
    talk.screen.document({"run": talk.model.run, "drawings": talk.generated})


def _obey(talk: Conversation, line: Line) -> bool:
    """Does what one line says; False to leave."""
    if line.action == "generate":
        talk.generate(line.value)
    elif line.action == "again":
        talk.again()
    elif line.action in SETTINGS:
        changed = with_setting(talk.request, line.action, line.value)
        talk.settings(changed)
        talk.request, talk.is_done = changed, False
        talk.screen.note(talk.summary)
    elif line.action in SWITCHES:
        talk.switches[line.action] = line.value
        talk.screen.note(f"{line.action} {'on' if line.value else 'off'}")
    elif line.action == "settings":
        talk.screen.note(talk.summary)
    elif line.action == "help":
        talk.screen.note(*HELP)
    return line.action != "quit"


def _near(path: Path) -> Path:
    """The path from here where it lies below: short enough to read, and right to click."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _script(settings: str) -> str | None:
    """The next line of a script, None at its end."""
    with woken_for_signals():
        return sys.stdin.readline() or None
