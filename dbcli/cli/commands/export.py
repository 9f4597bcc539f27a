"""Taking a run to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of


def export(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Which run, like 3 or 0003-dog.", autocompletion=completion.runs),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="checkpoint (every program), diffusers (a folder for diffusers), lora (diffusers), "
            "kohya (ComfyUI, AUTOMATIC1111, InvokeAI), embedding or embedding-invokeai (of a textual inversion), hub.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="Output file or folder; in exports/ by default.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp16 or fp32.")] = "fp16",
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="NAME", help="With --to hub: the repository, NAME or OWNER/NAME.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --to hub: make the repository public.")] = False,
    licence: Annotated[
        str | None,
        typer.Option("--licence", metavar="ID", help="Licence in the file or card; the base's own by default."),
    ] = None,
    author: Annotated[str | None, typer.Option("--author", metavar="NAME", help="Author in the file.")] = None,
    allow_collision: options.AllowCollision = False,
) -> None:
    """Write a run in another tool's format, and prove it by loading it back."""
    from dbcli.cli.output.export import publish, show_export
    from dbcli.workflows.sharing.export import ExportRequest, export_run
    from dbcli.workflows.sharing.export_metadata import Origin

    call = of(context)
    name = call.wanted(run, "RUN", "Which run")
    target = call.wanted(to, "--to", "Which format", lambda: "checkpoint")
    request = ExportRequest(name, target, precision, out, Origin(author, licence), allow_collision)
    if target == "hub":
        return publish(call, request, repo, public=public)
    show_export(call.screen, export_run(call.layout(), request, call.screen, offline=call.offline))
