"""Class images: generated ahead of a run, listed, removed."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of
from dbcli.cli.processes import Gpus, on_ranks

prior_app = typer.Typer(help="Generate, list and remove class images.", no_args_is_help=True, rich_markup_mode=None)


@prior_app.command("make")
def make(
    context: typer.Context,
    class_noun: Annotated[str | None, typer.Option("--class", help="Which class, like dog.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="How many images in all.")] = None,
    profile: options.Profile = None,
    sets: options.Settings = None,
    gpus: Gpus = 1,
) -> None:
    """Generate class images ahead of a run, or add to a set."""
    from dbcli.workflows.class_images.manage import make_class_images

    with on_ranks(context, gpus) as (call, group):
        noun = group.on_main(lambda: call.wanted(class_noun, "--class", "Which class"))
        made = make_class_images(
            call.layout,
            noun,
            count=count,
            profile=profile,
            sets=sets or [],
            group=group,
            progress=call.screen,
            offline=call.offline,
        )
        call.screen.document({"key": made.key, "prompt": made.prompt, "images": made.files, "line": made.line})
        call.screen.line(made.line)


@prior_app.command("list")
def list_sets(context: typer.Context) -> None:
    """List the project's class image sets."""
    from dbcli.cli.output.images import show_class_image_sets
    from dbcli.workflows.class_images.manage import summaries

    call = of(context)
    show_class_image_sets(call.screen, summaries(call.layout))


@prior_app.command("prune")
def prune_sets(
    context: typer.Context,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY...",
            help="Which sets; by default those of another base.",
            autocompletion=completion.class_image_sets,
        ),
    ] = None,
) -> None:
    """Remove class image sets that no run needs any more."""
    from dbcli.cli.output.numbers import counted
    from dbcli.workflows.class_images.manage import prune, unfit

    call = of(context)
    chosen = keys or unfit(call.layout)
    if chosen:
        call.agree(f"Remove {', '.join(chosen)}?", "All sets are kept.")
        prune(call.layout, chosen)
    call.screen.document({"removed": chosen})
    call.screen.line(f"Removed {counted(len(chosen), 'class image set')}")
