"""Bringing in what other tools have made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli.invocation import of

RunName = Annotated[str | None, typer.Option("--name", help="What the run is called; the file's own by default.")]
AllowCollision = Annotated[
    bool, typer.Option("--allow-collision", help="For research: words that clash, and record that.")
]


def import_lora(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A LoRA of kohya's tools, AUTOMATIC1111, ComfyUI, PEFT or diffusers."),
    ] = None,
    name: RunName = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="WORD", help="The word it answers to; with --class. Once for every subject."),
    ] = None,
    class_noun: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NOUN", help="What kind of thing it shows; with --token, in the same order."),
    ] = None,
    allow_collision: AllowCollision = False,
) -> None:
    """Make a finished run of a LoRA file, to draw with it, score it and export it.

    Without --token and --class the file's metadata says which words it answers to: all of its subjects.
    """
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.sharing.import_lora import import_lora as bring_in
    from dbcli.workflows.sharing.imported_runs import ImportRequest

    call = of(context)
    layout = call.layout()
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which LoRA file"))
    request = ImportRequest(source, name, token or [], class_noun or [], allow_collision)
    show_run(call.screen, bring_in(layout, request, call.screen, offline=call.offline), layout)


def import_embedding(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A .safetensors, .pt or .bin of AUTOMATIC1111, InvokeAI or diffusers."),
    ] = None,
    name: RunName = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="WORD", help="The word it answers to; the file's own by default."),
    ] = None,
    class_noun: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NOUN", help="What kind of thing it shows, if it is a thing."),
    ] = None,
    allow_collision: AllowCollision = False,
) -> None:
    """Make a finished run of an embedding (textual inversion), to draw with its word and export it."""
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.sharing.import_embedding import import_embedding as bring_in
    from dbcli.workflows.sharing.imported_runs import ImportRequest

    call = of(context)
    layout = call.layout()
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which embedding"))
    request = ImportRequest(source, name, token or [], class_noun or [], allow_collision)
    show_run(call.screen, bring_in(layout, request, call.screen, offline=call.offline), layout)
