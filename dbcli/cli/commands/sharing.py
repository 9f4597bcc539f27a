"""Taking runs to other tools, and bringing in what other tools have made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of
from dbcli.errors import UsageError
from dbcli.hints import command

# What one target alone has a use for.
TARGETS_OF_OPTIONS = {"--with-base": "comfyui", "--repo": "hub", "--public": "hub"}
# What a run is exported to where nobody says, by its method; every other one to a checkpoint.
USUAL_TARGETS = {"textual-inversion": "embedding"}


def export(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Which run, like 3 or 0003-dog.", autocompletion=completion.runs)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="checkpoint (every program), diffusers (a folder for diffusers), lora (diffusers), "
            "kohya (ComfyUI, AUTOMATIC1111, InvokeAI), embedding or embedding-invokeai (of a textual inversion), "
            "comfyui (a folder with a workflow), hub.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Output file or folder; in exports/ by default.",
            callback=options.from_home,
        ),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp16 or fp32.")] = "fp16",
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="NAME", help="With --to hub: the repository, NAME or OWNER/NAME.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --to hub: make the repository public.")] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            metavar="ID",
            help="Licence in the file or card, not in a diffusers folder; the base's own by default.",
        ),
    ] = None,
    author: Annotated[
        str | None,
        typer.Option("--author", metavar="NAME", help="Author in the file; a diffusers folder has no place for one."),
    ] = None,
    with_base: Annotated[
        bool, typer.Option("--with-base", help="With --to comfyui: write the base that a LoRA or a word needs, too.")
    ] = False,
    allow_collision: options.AllowCollision = False,
) -> None:
    """Write a run in another tool's format, and verify it by loading it back."""
    from dbcli.cli.output.files import publish, show_comfyui, show_export
    from dbcli.workflows.sharing.export import ExportRequest, export_run, exported_run
    from dbcli.workflows.sharing.export_metadata import Origin

    call = of(context)
    name = call.wanted(run, "RUN", "Which run", hint="dreambooth runs list shows the runs; add the number of one")
    # Before a format is asked for or proposed: of a run that is not here none is right.
    method = exported_run(call.layout, name).method
    target = call.wanted(to, "--to", "Which format", lambda: USUAL_TARGETS.get(method, "checkpoint"))
    request = ExportRequest(name, target, precision, out, Origin(author, licence), allow_collision)
    _check_target(name, target, {"--with-base": with_base, "--repo": repo, "--public": public})
    if target == "hub":
        return publish(call, request, repo, public=public)
    if target == "comfyui":
        from dbcli.workflows.sharing.comfyui import export_to_comfyui

        made = export_to_comfyui(call.layout, request, call.screen, offline=call.offline, with_base=with_base)
        return show_comfyui(call.screen, made)
    show_export(call.screen, export_run(call.layout, request, call.screen, offline=call.offline))


def _check_target(name: str, target: str, given: Mapping[str, str | bool | None]) -> None:
    """Raises UsageError for an option that only another target has a use for."""
    for option, value in given.items():
        wanted = TARGETS_OF_OPTIONS[option]
        if value not in (None, False) and target != wanted:
            words = [option, value] if isinstance(value, str) else [option]
            raise UsageError(
                f"{option} goes with --to {wanted}.", hint=command("dreambooth", "export", name, "--to", wanted, *words)
            )


RunName = Annotated[str | None, typer.Option("--name", help="Name of the run; by default the file's own.")]


def import_lora(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A LoRA from kohya's tools, AUTOMATIC1111, ComfyUI, PEFT or diffusers."),
    ] = None,
    name: RunName = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="WORD", help="Its trigger word; goes with --class. Once per subject."),
    ] = None,
    class_noun: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NOUN", help="Its class noun; goes with --token, in the same order."),
    ] = None,
    allow_collision: options.AllowCollision = False,
) -> None:
    """Turn a LoRA file into a finished run, to generate with it, score it and export it.

    Without --token and --class its trigger words come from the file's metadata, for all of its subjects.
    """
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.sharing.import_lora import import_lora as bring_in
    from dbcli.workflows.sharing.imported_runs import ImportRequest

    call = of(context)
    layout = call.layout
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which LoRA file"))
    request = ImportRequest(source, name, token or [], class_noun or [], allow_collision)
    show_run(call.screen, bring_in(layout, request, call.screen, offline=call.offline), layout)


def import_embedding(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A .safetensors, .pt or .bin from AUTOMATIC1111, InvokeAI or diffusers."),
    ] = None,
    name: RunName = None,
    token: Annotated[
        list[str] | None, typer.Option("--token", metavar="WORD", help="Its trigger word; the file's own by default.")
    ] = None,
    class_noun: Annotated[
        list[str] | None, typer.Option("--class", metavar="NOUN", help="Its class noun, if it stands for an object.")
    ] = None,
    allow_collision: options.AllowCollision = False,
) -> None:
    """Turn an embedding (textual inversion) into a finished run, to generate with its word and export it."""
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.sharing.import_embedding import import_embedding as bring_in
    from dbcli.workflows.sharing.imported_runs import ImportRequest

    call = of(context)
    layout = call.layout
    source = Path(call.wanted(str(file) if file else None, "FILE", "Which embedding"))
    request = ImportRequest(source, name, token or [], class_noun or [], allow_collision)
    show_run(call.screen, bring_in(layout, request, call.screen, offline=call.offline), layout)
