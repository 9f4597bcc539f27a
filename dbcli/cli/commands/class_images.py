"""Class images, that keep a class alive while one member of it is learnt."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.invocation import of
from dbcli.cli.processes import Gpus, called_with
from dbcli.errors import Refused

prior_app = typer.Typer(help="Draw, list and remove class images.", no_args_is_help=True, rich_markup_mode=None)


@prior_app.command("make")
def make(
    context: typer.Context,
    class_noun: Annotated[str | None, typer.Option("--class", help="Which class, like dog.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="How many in all.")] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Whose prior settings to use.", autocompletion=completion.profiles),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting.", autocompletion=completion.settings),
    ] = None,
    gpus: Gpus = 1,
) -> None:
    """Draw class images ahead of a run, or top a set up."""
    from dbcli.workflows.class_images.manage import make_class_images

    call, processes = called_with(context, gpus)
    noun = call.wanted(class_noun, "--class", "Which class")
    made = make_class_images(
        call.layout(),
        noun,
        count=count,
        profile=profile,
        sets=sets or [],
        processes=processes,
        progress=call.screen,
        offline=call.offline,
    )
    call.screen.document({"key": made.key, "prompt": made.prompt, "images": made.files, "line": made.line})
    call.screen.line(made.line)


@prior_app.command("list")
def list_sets(context: typer.Context) -> None:
    """All class images of the project, a line a set."""
    from dbcli.cli.output.listings import show_class_image_sets
    from dbcli.workflows.class_images.manage import summaries

    call = of(context)
    show_class_image_sets(call.screen, summaries(call.layout()))


@prior_app.command("prune")
def prune_sets(
    context: typer.Context,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY...",
            help="Which sets; those of another base by default.",
            autocompletion=completion.class_image_sets,
        ),
    ] = None,
) -> None:
    """Remove class images that no run needs any more."""
    from dbcli.workflows.class_images.manage import prune, unfit

    call = of(context)
    layout = call.layout()
    chosen = keys or unfit(layout)
    if chosen and not call.sure(f"Remove {', '.join(chosen)}?"):
        raise Refused("All sets are kept.", hint="add --yes to remove them without being asked")
    if chosen:
        prune(layout, chosen)
    call.screen.document({"removed": chosen})
    call.screen.line(f"Removed {len(chosen)} set{'' if len(chosen) == 1 else 's'} of class images")
