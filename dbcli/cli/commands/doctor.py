"""The look at machine and project."""

from __future__ import annotations

import typer

from dbcli.cli.invocation import of


def doctor(context: typer.Context) -> None:
    """Look at this machine and the project: a verdict for each part, and how to mend what is wrong."""
    from dbcli.cli.output.guidance import show_checks
    from dbcli.workflows.doctor.machine import examine

    call = of(context)
    raise typer.Exit(show_checks(call.screen, examine(call.project, call.screen, offline=call.offline)))
