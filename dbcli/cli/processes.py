"""How many processes a command has, and which of them speaks."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli.invocation import Invocation, of
from dbcli.errors import UsageError

GPUS_HELP = (
    "How many GPUs of this machine work together, a process each; with --set train.device=cpu, how many processes."
)
Gpus = Annotated[int, typer.Option("--gpus", metavar="N", min=1, help=GPUS_HELP)]


def called_with(
    context: typer.Context, gpus: int, *, dry_run: bool = False, alone: str | None = None
) -> tuple[Invocation, int]:
    """The call, and how many processes it has: those of --gpus, or of torchrun or accelerate launch.

    A process that one of these started beside the first does its part in here, and ends. `alone` names an option with
    which nothing is spread: UsageError.
    """
    from dbcli.workflows.several import asked_processes, is_follower

    call = of(context)
    if is_follower():
        from dbcli.workflows.following import follow

        raise typer.Exit(0 if dry_run or alone else follow())
    processes = asked_processes(gpus)
    if processes > 1 and alone is not None:
        raise UsageError(f"{alone} works in one process.", hint="leave --gpus out")
    if processes > 1 and dry_run:
        call.screen.note(f"The forecast is of one process with the whole batch; {processes} share it.")
    return call, processes
