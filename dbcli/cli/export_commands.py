"""Taking a run to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli.invocation import of


def export(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Which run, like 3 or 0003-dog.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="diffusers, checkpoint (ComfyUI, AUTOMATIC1111), lora or kohya.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to; exports/ by default.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp16 or fp32.")] = "fp16",
) -> None:
    """Write a run in another tool's format, and prove it by loading it back."""
    from dbcli.cli.listings import show_export
    from dbcli.workflows.export import export_run

    call = of(context)
    layout = call.layout()
    name = call.wanted(run, "RUN", "Which run")
    target = call.wanted(to, "--to", "To which format", lambda: "checkpoint")
    made = export_run(
        layout, name, target=target, precision=precision, out=out, progress=call.screen, offline=call.offline
    )
    show_export(call.screen, made)
