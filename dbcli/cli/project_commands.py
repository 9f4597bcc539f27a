"""Making a project and bringing subjects into it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli.invocation import of


def init(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The folder that becomes a project.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="sd-v1-4, sd-v1-5, tiny, a hub id, a folder or a model file.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="The project's default profile.")] = None,
) -> None:
    """Make a project folder on a base model."""
    from dbcli.workflows.projects import init_project, proposed_base

    call = of(context)
    target = Path(call.wanted(str(folder) if folder else None, "DIR", "Which folder"))
    chosen = base or (call.wanted(None, "--base", "Which base", proposed_base) if call.may_ask else proposed_base())
    made = init_project(target, chosen, profile, offline=call.offline)
    call.screen.document({"project": made.folder, "base": made.base, "revision": made.revision})
    call.screen.line(f"Project {made.folder} on {made.base}" + (f" at {made.revision}" if made.revision else ""))
    call.screen.line(f"Next: cd {target}; dreambooth add-subject dog --class dog PHOTOS", style="dim")


def add_subject(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A short name for the subject, like dog.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")],
    class_noun: Annotated[
        str | None, typer.Option("--class", help="What kind of thing it is, in a word or two: dog, backpack.")
    ] = None,
    token: Annotated[str | None, typer.Option("--token", help="The rare word that will stand for it.")] = None,
) -> None:
    """Bring a subject and its photos into the project."""
    from dbcli.cli.listings import show_added
    from dbcli.workflows.subjects import add_subject as bring_in

    call = of(context)
    layout = call.layout()
    noun = call.wanted(class_noun, "--class", f"What kind of thing is {name} (its class noun)", lambda: name)
    added, advice = bring_in(layout, name, noun, photos, token)
    show_added(call.screen, added, advice)
