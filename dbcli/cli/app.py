"""The `dreambooth` program: its commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from dbcli import __version__
from dbcli.cli import arguments
from dbcli.cli.demo_commands import demo
from dbcli.cli.draw_commands import generate
from dbcli.cli.evaluate_commands import evaluate
from dbcli.cli.invocation import Invocation
from dbcli.cli.prior_commands import prior_app
from dbcli.cli.project_commands import add_subject, init
from dbcli.cli.run_commands import runs_app
from dbcli.cli.screen import Screen
from dbcli.cli.train_commands import train
from dbcli.errors import DreamboothError, Interrupted

EPILOG = "Everywhere: -C/--project DIR, --json, --quiet, --yes, --offline, before or after the command."

app = typer.Typer(
    name="dreambooth",
    help="Teach Stable Diffusion one particular thing from a few photos, draw it anywhere, and measure how well.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dreambooth {__version__}")
        raise typer.Exit


@app.callback()
def general(
    context: typer.Context,
    project: Annotated[
        Path | None, typer.Option("--project", "-C", help="The project folder; else the nearest parent that is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bars.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to every question.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    screen = Screen(quiet=quiet, as_json=as_json)
    context.obj = Invocation(project=project, yes=yes, offline=offline, screen=screen)


app.command("init")(init)
app.command("add-subject")(add_subject)
app.command("train")(train)
app.command("generate")(generate)
app.command("eval")(evaluate)
app.add_typer(prior_app, name="reg")
app.add_typer(runs_app, name="runs")
app.command("demo")(demo)


def main(given: list[str] | None = None) -> None:
    """Runs one command line and ends the process with its exit code."""
    words = list(sys.argv[1:] if given is None else given)
    _prepare_environment(words)
    screen = Screen(quiet="--quiet" in words or "-q" in words, as_json="--json" in words)
    try:
        app(args=arguments.arranged(words), prog_name="dreambooth")
    except DreamboothError as error:
        _end(screen, error.message, error.hint, error.exit_code)
    except (MemoryError, RuntimeError, OSError) as error:
        code, message, hint = _machine_fault(error) or _bug(error)
        _end(screen, message, hint, code)
    except Exception as error:
        code, message, hint = _bug(error)
        _end(screen, message, hint, code)


def _prepare_environment(words: list[str]) -> None:
    """What has to be set before the libraries that read it are imported."""
    if arguments.is_offline(words):
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Threads that spin while they wait make a busy machine many times slower, and a quiet one hardly faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_now)


def _stop_now(number: int, frame: FrameType | None) -> None:
    raise Interrupted("Stopped.", exit_code=128 + number)


def _machine_fault(error: BaseException) -> tuple[int, str, str] | None:
    """Exit 5 for a full memory or disk, known by the error's name so that torch need not be imported here."""
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    ):
        return 5, "The memory is full.", "try --method lora, or --set train.gradient_checkpointing=true"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            5,
            f"The disk is full ({error.filename or 'while writing'}).",
            "free some space and run the command again",
        )
    if isinstance(error, PermissionError):
        return 5, f"No permission for {error.filename}.", "check who owns the folder"
    return None


def _bug(error: BaseException) -> tuple[int, str, str]:
    """Exit 1: the program's own fault. The traceback goes to a log, not to the person's screen."""
    import time
    import traceback

    from platformdirs import user_log_path

    folder = user_log_path("dreambooth", appauthor=False)
    log = folder / time.strftime("crash-%Y%m%d-%H%M%S.log")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        traceback.print_exception(error)
    return 1, f"A fault of dreambooth itself: {type(error).__name__}: {error}", f"the details are in {log}"


def _end(screen: Screen, message: str, hint: str | None, exit_code: int) -> None:
    screen.document({"error": {"message": message, "hint": hint, "exit_code": exit_code}})
    screen.error(message, hint)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
