"""Bringing in what other tools have made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli.invocation import of


def import_lora(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A LoRA of kohya's tools, AUTOMATIC1111, ComfyUI, PEFT or diffusers."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the run is called; the file's own by default.")
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="WORD", help="The word it answers to; with --class. Once for every subject."),
    ] = None,
    class_noun: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NOUN", help="What kind of thing it shows; with --token, in the same order."),
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: words that clash, and record that.")
    ] = False,
) -> None:
    """Make a finished run of a LoRA file, to draw with it, score it and export it.

    Without --token and --class the file's metadata says which words it answers to: all of its subjects.
    """
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.sharing.import_lora import import_lora as bring_in

    call = of(context)
    layout = call.layout()
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which LoRA file"))
    record = bring_in(
        layout,
        source,
        name=name,
        tokens=token or [],
        class_nouns=class_noun or [],
        allow_collision=allow_collision,
        progress=call.screen,
        offline=call.offline,
    )
    show_run(call.screen, record, layout)


def import_embedding(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A .safetensors, .pt or .bin of AUTOMATIC1111, InvokeAI or diffusers."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the run is called; the file's name by default.")
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="WORD", help="The word it answers to; the file's own by default."),
    ] = None,
    class_noun: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NOUN", help="What kind of thing it shows, if it is a thing."),
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: words that clash, and record that.")
    ] = False,
) -> None:
    """Make a finished run of an embedding (textual inversion), to draw with its word and export it."""
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.sharing.import_embedding import import_embedding as bring_in

    call = of(context)
    layout = call.layout()
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which embedding"))
    record = bring_in(
        layout,
        source,
        name=name,
        tokens=token or [],
        class_nouns=class_noun or [],
        allow_collision=allow_collision,
        progress=call.screen,
        offline=call.offline,
    )
    show_run(call.screen, record, layout)
