"""Making a project and bringing subjects into it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.invocation import of
from dbcli.hints import inside


def init(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The folder that becomes a project.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="sd-v1-4, sd-v1-5, tiny, a hub id, a folder or a model file.",
            autocompletion=completion.bases,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="The project's default profile.", autocompletion=completion.profiles),
    ] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(
            "--prediction-type",
            metavar="TYPE",
            help="epsilon or v_prediction, where the base does not say it of itself or is wrong.",
        ),
    ] = None,
    vae: Annotated[
        Path | None,
        typer.Option("--vae", metavar="FILE_OR_FOLDER", help="A VAE to use in place of the base's own."),
    ] = None,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--no-gpu", help="Propose a profile for a machine with a GPU, or without.")
    ] = None,
) -> None:
    """Make a project folder on a base model."""
    from dbcli.cli.interactive.questions import chosen_base, chosen_folder, chosen_profile
    from dbcli.workflows.setup.open import init_project

    call = of(context)
    target = chosen_folder(call, folder)
    chosen = chosen_base(call, gpu) if base is None else base
    made = init_project(
        target,
        chosen,
        profile or chosen_profile(call, chosen, gpu),
        offline=call.offline,
        prediction_type=prediction_type,
        vae=vae,
    )
    for note in made.notes:
        call.screen.warn(note)
    call.screen.document(asdict(made))
    call.screen.line(f"Project {made.folder} on {made.base}" + (f" at {made.revision}" if made.revision else ""))
    call.screen.line(f"Profile {made.profile}" if made.profile else "Profile: by base and method")
    call.screen.line(f"Next: {inside(target, 'dreambooth add-subject')}", style="dim")


def add_subject(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A short name for the subject, like dog.")] = None,
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")
    ] = None,
    class_noun: Annotated[
        str | None, typer.Option("--class", help="What kind of thing it is, in a word or two: dog, backpack.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="Its identifier: the rare word that will stand for it.")
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: take a word that clashes, and record that.")
    ] = False,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="A copy of google/dreambooth's dataset, or kohya's folders: NAME of it, or all of it.",
        ),
    ] = None,
    mask: Annotated[
        bool, typer.Option("--mask", help="Find the subject in each photo, so that backgrounds are not learnt.")
    ] = False,
    caption: Annotated[
        bool, typer.Option("--caption", help="Write a first caption for each photo that has none.")
    ] = False,
) -> None:
    """Bring a subject and its photos into the project, from photos, kohya's folders or a dataset."""
    from dbcli.cli.interactive.intake import Wanted, bring_in

    bring_in(of(context), Wanted(name, photos, class_noun, token, dataset, mask, caption, allow_collision))
