"""Creating a project, adding subjects to it, and checking it; the demo does all of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of
from dbcli.hints import inside


def init(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder of the new project.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Base model: sd-v1-4, sd-v1-5, sdxl, zimage, tiny, tiny-xl, tiny-flow, a Hub id, a folder or a file.",
            autocompletion=completion.bases,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="Default profile of the project; in later commands --method replaces it.",
            autocompletion=completion.profiles,
        ),
    ] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(
            "--prediction-type", metavar="TYPE", help="epsilon or v_prediction; overrides what the base says."
        ),
    ] = None,
    vae: Annotated[
        Path | None, typer.Option("--vae", metavar="FILE_OR_FOLDER", help="A VAE to use instead of the base's own.")
    ] = None,
    gpu: Annotated[
        bool | None,
        typer.Option(
            "--gpu/--no-gpu",
            help="Propose the base, and set the profile, for a machine with or without a GPU.",
        ),
    ] = None,
) -> None:
    """Create a project folder for a base model."""
    from dbcli.cli.interactive.questions import chosen_base, chosen_folder, chosen_profile
    from dbcli.workflows.setup.effective_settings import default_profiles
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
    call.screen.warn(*made.notes)
    call.screen.document(asdict(made))
    call.screen.line(f"Project {made.folder} on {made.base}" + (f" at {made.revision}" if made.revision else ""))
    by_method = ", ".join(f"{name} for {method}" for method, name in default_profiles(made.base).items())
    call.screen.line(f"Profile {made.profile}" if made.profile else f"Profile by method: {by_method}")
    call.screen.next(inside(target, "dreambooth add-subject"))


def add_subject(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Short name for the subject, like dog.")] = None,
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")
    ] = None,
    class_noun: options.ClassNoun = None,
    token: options.Token = None,
    allow_collision: options.AllowCollision = False,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="A copy of google/dreambooth's dataset, or kohya's folders: NAME from it, or all of it.",
        ),
    ] = None,
    mask: Annotated[
        bool | None,
        typer.Option(
            "--mask/--no-mask",
            help="Find the subject in each photo, so that backgrounds are not learnt; by default on the embedded base.",
        ),
    ] = None,
    caption: Annotated[
        bool | None,
        typer.Option(
            "--caption/--no-caption",
            help="Write a first caption for each photo that has none, or none; by default where no download is needed.",
        ),
    ] = None,
) -> None:
    """Add a subject and its photos to the project, from photos, kohya's folders or a dataset."""
    from dbcli.cli.interactive.intake import AddRequest, bring_in

    bring_in(of(context), AddRequest(name, photos, class_noun, token, dataset, mask, caption, allow_collision))


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Project folder that the demo creates.")] = Path(
        "dreambooth-demo"
    ),
) -> None:
    """Run the whole job from photos to images and scores, on the embedded base and the bundled photos."""
    from dbcli.cli.output.scores import show_demo
    from dbcli.workflows.demo import run_demo

    call = of(context)
    show_demo(call.screen, run_demo(folder, call.screen))


def doctor(context: typer.Context) -> None:
    """Check the machine and the project, and suggest fixes."""
    from dbcli.cli.output.guidance import show_checks
    from dbcli.workflows.doctor.machine import examine

    call = of(context)
    raise typer.Exit(show_checks(call.screen, examine(call.project, call.screen, offline=call.offline)))
