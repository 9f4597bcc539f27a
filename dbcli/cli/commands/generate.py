"""Generating images with a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of


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
        typer.Option("--weights", metavar="1,0.8", help="The weight of each --run, 1 by default; negative: away from."),
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
        int | None, typer.Option("--seed", help="Seed of the first image; the next ones count up. -1: random.")
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
        typer.Option("--precision", help="auto, fp32, bf16 or fp16; auto: bf16 on a CUDA GPU that has it, else fp32."),
    ] = None,
    compile_first: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the UNet first: takes minutes, pays off for many images."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write one grid of all images, photos first.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Output folder; the run's images/ by default.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="PNG",
            help="Generate an image again, of this program or AUTOMATIC1111; options given here override its recipe.",
        ),
    ] = None,
    allow_collision: options.AllowCollision = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Keep the model loaded and ask for prompts; :help lists more.")
    ] = False,
) -> None:
    """Generate images with what a run has learnt."""
    from dbcli.cli.interactive.session import sit_down
    from dbcli.cli.output.images import show_generated
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
