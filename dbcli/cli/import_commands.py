"""Bringing in what other tools have made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli.invocation import of


def import_lora(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A LoRA of kohya's tools, AUTOMATIC1111 or diffusers.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the run is called; the file's own by default.")
    ] = None,
    token: Annotated[str | None, typer.Option("--token", help="The word it answers to; with --class.")] = None,
    class_noun: Annotated[
        str | None, typer.Option("--class", help="What kind of thing it shows; with --token.")
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: words that clash, and record that.")
    ] = False,
) -> None:
    """Make a finished run of a LoRA file, to draw with it, score it and export it."""
    from dbcli.cli.run_listings import show_run
    from dbcli.workflows.import_lora import import_lora as bring_in

    call = of(context)
    layout = call.layout()
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which LoRA file"))
    words = {"name": name, "token": token, "class_noun": class_noun, "allow_collision": allow_collision}
    record = bring_in(layout, source, **words, progress=call.screen, offline=call.offline)
    show_run(call.screen, record, layout)
