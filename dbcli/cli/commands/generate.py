"""Generating images with a run, and class images ahead of one."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of
from dbcli.cli.processes import Gpus, on_ranks

prior_app = typer.Typer(help="Generate, list and remove class images.", no_args_is_help=True, rich_markup_mode=None)


def generate(
    context: typer.Context,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help='What to generate; {dog} stands for "sks dog".')
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Which run, by number, name or subject; by default the newest that knows the prompt's subjects. base: "
            "the base alone. Several LoRA runs are combined.",
            autocompletion=completion.runs,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="1,0.8", help="Weight of each --run, 1 by default; negative subtracts it."),
    ] = None,
    checkpoint: options.Checkpoint = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="Images per prompt.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")] = None,
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", help="ddim, dpm++, euler, euler-a, unipc, …", autocompletion=completion.samplers),
    ] = None,
    eta: Annotated[float | None, typer.Option("--eta", help="DDIM eta: fresh noise per step, 0 to 1.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="First image's seed; later ones count up. -1: random.")
    ] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="Negative prompt.")] = None,
    clip_skip: Annotated[
        int | None,
        typer.Option(
            "--clip-skip", help="Text encoder layer, counted as AUTOMATIC1111 does: 1 is the last, 2 the last but one."
        ),
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="In pixels; the base's own by default.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="In pixels; the base's own by default.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images generated at once.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="auto, fp32, bf16 or fp16; auto: bf16 where the GPU or CPU computes in it, else fp32."
        ),
    ] = None,
    compile_first: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the UNet first: takes minutes, pays off for many images."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write one grid of all images, photos first.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Output folder; the run's images/ by default.",
            callback=options.from_home,
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="PNG",
            help="Reproduce an image of this program or of AUTOMATIC1111; options given here override its recipe.",
            callback=options.from_home,
        ),
    ] = None,
    allow_collision: options.AllowCollision = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Keep the model loaded and ask for prompts; :help lists more.")
    ] = False,
) -> None:
    """Generate images with what a run has learnt."""
    from dbcli.cli.interactive.session import sit_down
    from dbcli.cli.output.files import show_generated
    from dbcli.workflows.generation.generate import generate as generate_images
    from dbcli.workflows.generation.request import GenerateRequest, RunSelection

    call = of(context)
    settings = {
        "count": count,
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "eta": eta,
        "negative": negative,
        "clip_skip": clip_skip,
        "batch_size": batch_size,
        "precision": precision,
        "compile": compile_first,
    }
    selection = RunSelection(run or (), weights, allow_collision, checkpoint)
    request = GenerateRequest(prompts or (), selection, settings, seed, (width, height), grid, out, like)
    if interactive:
        return sit_down(call, request)
    if not (prompts or like):
        request = replace(request, prompts=[call.wanted(None, "PROMPT", "Prompt")])
    show_generated(call.screen, generate_images(call.layout, request, call.screen, offline=call.offline))


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
        noun = group.on_main(lambda: call.wanted(class_noun, "--class", "Which class", hint="add --class NOUN"))
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
        listed = [{"key": one.key, "prompt": one.prompt, "images": one.files, "line": one.line} for one in made]
        # Beside them what was told when there was one set: its key and prompt, all images.
        everything = [image for one in made for image in one.files]
        call.screen.document({**listed[0], "images": everything, "sets": listed})
        for one in made:
            call.screen.line(one.line)


@prior_app.command("list")
def list_sets(context: typer.Context) -> None:
    """List the project's class image sets."""
    from dbcli.cli.output.files import show_class_image_sets
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
            help="Which sets; by default those made with another base.",
            autocompletion=completion.class_image_sets,
        ),
    ] = None,
) -> None:
    """Remove class image sets made with another base, or those named."""
    from dbcli.counts import counted
    from dbcli.workflows.class_images.manage import prune, unfit

    call = of(context)
    chosen = keys or unfit(call.layout)
    if chosen:
        call.agree(f"Remove {', '.join(chosen)}?", "All sets are kept.")
        prune(call.layout, chosen)
    call.screen.document({"removed": chosen})
    call.screen.line(f"Removed {counted(len(chosen), 'class image set')}")
