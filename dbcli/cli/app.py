"""The `dreambooth` program: its commands, and the one place where an error becomes an exit code."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperArgument, TyperGroup

from dbcli import __version__
from dbcli.cli.arguments import arranged, general_options, project_of
from dbcli.cli.commands.generate import generate, prior_app
from dbcli.cli.commands.project import add_subject, demo, doctor, init
from dbcli.cli.commands.runs import evaluate, runs_app
from dbcli.cli.commands.sharing import export, import_embedding, import_lora
from dbcli.cli.commands.subjects import subjects_app, tokens_app
from dbcli.cli.commands.sweeps import bench, sweep
from dbcli.cli.commands.train import train
from dbcli.cli.faults import bug, machine_fault, usage_fault
from dbcli.cli.invocation import Invocation
from dbcli.cli.signals import StopNow, stopped_by_signals
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import DreamboothError, Interrupted


class Program(TyperGroup):
    """The program's commands, with types of Python taken out of their help: `PHOTO...`, not `PHOTO... <list[Path]>`."""

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


app = typer.Typer(
    name="dreambooth",
    cls=Program,
    help="Teach Stable Diffusion a subject from a few photos, generate images of it anywhere, and measure the result.",
    epilog="With every command: -C/--project DIR, --json, --quiet, --yes, --offline, before or after its name.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dreambooth {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def general(
    context: typer.Context,
    project: Annotated[
        Path | None, typer.Option("--project", "-C", help="Project folder; by default the nearest parent that is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bars.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    screen = Screen(quiet=quiet, as_json=as_json, project=project)
    context.obj = Invocation(project=project, yes=yes, offline=offline, screen=screen)
    if context.invoked_subcommand is None:
        from dbcli.cli.output.guidance import show_status
        from dbcli.workflows.status import where_one_stands

        show_status(screen, where_one_stands(project))


app.command("init")(init)
app.command("add-subject", short_help="Add a subject and its photos to the project.")(add_subject)
app.command("train")(train)
app.command("generate")(generate)
app.command("eval", short_help="Score a run, beside the photos' own values.")(evaluate)
app.command("export", short_help="Write a run in another tool's format, and verify it.")(export)
app.command("import-lora", short_help="Turn a LoRA file into a finished run.")(import_lora)
app.command("import-embedding", short_help="Turn an embedding into a finished run.")(import_embedding)
app.add_typer(prior_app, name="reg")
app.add_typer(runs_app, name="runs")
app.add_typer(subjects_app, name="subjects")
app.add_typer(tokens_app, name="tokens")
app.command("sweep", short_help="Train, generate and score every cell of a grid.")(sweep)
app.command("bench", short_help="Train and score many subjects with one recipe.")(bench)
app.command("doctor", short_help="Check the machine and the project, and suggest fixes.")(doctor)
app.command("demo", short_help="Run the whole job on the embedded base, in minutes.")(demo)


def main(given: list[str] | None = None) -> None:
    """Runs one command line and ends the process with its exit code."""
    words = list(sys.argv[1:] if given is None else given)
    options = general_options(words)
    screen = Screen(quiet="--quiet" in options, as_json="--json" in options, project=project_of(words))
    try:
        with stopped_by_signals():
            _prepare_environment(offline="--offline" in options)
            try:
                ended = app(args=arranged(words), prog_name="dreambooth", standalone_mode=False)
            except Interrupted as stopped:
                _end(screen, "stopped", stopped.message, stopped.hint, stopped.exit_code)
            except Exception as error:
                _end_by_fault(screen, words, error)
            sys.exit(ended if isinstance(ended, int) else 0)
    except StopNow as stop:
        _end(screen, "stopped", "Stopped.", None, stop.exit_code)


def _end_by_fault(screen: Screen, words: Sequence[str], error: Exception) -> NoReturn:
    """Ends with an error: the exit code, what is wrong and what to type next."""
    if isinstance(error, DreamboothError):
        from dbcli.cli.corrections import with_options_added, with_word_replaced

        replaced = with_word_replaced(words, *error.meant) if error.meant else None
        hint = replaced or (with_options_added(words, error.hint) if error.hint else None) or error.hint
        code, message = error.exit_code, error.message
    elif isinstance(error, typer.Abort):
        code, message, hint = 2, "A question was left unanswered.", "give the answer as an option, or --yes"
    elif type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    else:
        code, message, hint = usage_fault(error, words) or machine_fault(error) or bug(error)
    _end(screen, "error", message, hint, code)


def _end(screen: Screen, how: Literal["error", "stopped"], message: str, hint: str | None, exit_code: int) -> NoReturn:
    """Ends with an error, or stopped by a signal: somebody wanted that, and nothing went wrong."""
    screen.document({how: {"message": message, "hint": hint, "exit_code": exit_code}})
    (screen.error if how == "error" else screen.stopped)(message, hint)
    sys.exit(exit_code)


def _prepare_environment(*, offline: bool) -> None:
    """What has to be set before the libraries that read it are imported."""
    from dbcli.workflows.openmp import set_spin_count

    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    set_spin_count()


if __name__ == "__main__":
    main()
