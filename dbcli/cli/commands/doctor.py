"""Checking the machine and the project."""

from __future__ import annotations

import typer

from dbcli.cli.invocation import of


def doctor(context: typer.Context) -> None:
    """Check the machine and the project, and suggest fixes."""
    from dbcli.cli.output.guidance import show_checks
    from dbcli.workflows.doctor.machine import examine

    call = of(context)
    raise typer.Exit(show_checks(call.screen, examine(call.project, call.screen, offline=call.offline)))
