"""How many processes a command has, and which of them speaks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dbcli.cli.invocation import Invocation, of
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.diffusion.distributed import ProcessGroup

GPUS_HELP = "Number of processes, one per GPU of this machine; where train.device is cpu, on the CPU."
Gpus = Annotated[int, typer.Option("--gpus", metavar="N", min=1, help=GPUS_HELP)]


@contextmanager
def on_ranks(
    context: typer.Context, gpus: int, *, dry_run: bool = False, single: str | None = None
) -> Iterator[tuple[Invocation, ProcessGroup]]:
    """The call and its process group: that of torchrun or accelerate launch, or of --gpus, which starts them.

    `single` names an option that works in one process: UsageError. Only the main rank speaks, also by its exit code.
    """
    from dbcli.workflows.launch import joined, launch, launched_size

    call, launched, processes = of(context), launched_size(), max(launched_size(), gpus)
    if launched > 1 and gpus not in (1, launched):
        raise UsageError(f"--gpus {gpus}, and a launcher started {launched} processes.", hint="leave --gpus out")
    if processes > launched and not dry_run and single is None:
        raise typer.Exit(launch(sys.argv[1:], processes))
    with joined() as group:
        if not group.is_main:
            call.screen = Screen(quiet=True)
        if processes > 1 and single is not None:
            raise UsageError(f"{single} runs in one process.", hint="leave --gpus out")
        if processes > 1 and dry_run:
            call.screen.note(f"The estimate is for one process with the whole batch; {processes} share it.")
        yield call, group
