"""Drawing with a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.invocation import of


def generate(
    context: typer.Context,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help='What to draw; {dog} stands for "sks dog".')
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Which run, by number, name or subject; else the newest that knows the prompt's subjects. base: the "
            "bare base. Several LoRAs draw together.",
            autocompletion=completion.runs,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="1,0.8", help="How strongly each --run draws, 1 by default; below 0: away from it."
        ),
    ] = None,
    checkpoint: Annotated[
        int | None,
        typer.Option("--checkpoint", metavar="STEP", help="The run as it was after STEP, not its result."),
    ] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="Pictures a prompt.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Sampler steps.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler", help="ddim, dpm++, euler, euler-a, unipc, pndm, …", autocompletion=completion.samplers
        ),
    ] = None,
    eta: Annotated[float | None, typer.Option("--eta", help="DDIM's fresh noise a step, 0 to 1.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the first image, the next ones count up; -1: random.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option("--negative", help="Negative prompt: what should not be there.")
    ] = None,
    clip_skip: Annotated[
        int | None,
        typer.Option(
            "--clip-skip",
            help="Layer of the text encoder, counted as AUTOMATIC1111 does: 1 is the last, 2 the last but one.",
        ),
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="In pixels; the base's own by default.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="In pixels; the base's own by default.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pictures drawn at once.")] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="auto, fp32, bf16 or fp16; auto: bf16 on a CUDA GPU that has it, else fp32."),
    ] = None,
    compile_first: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the UNet first: minutes, for many pictures on a GPU."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also one sheet of all, photos first.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to, instead of the run's images/.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="PNG",
            help="Draw a picture again, of this program or AUTOMATIC1111; options given here win over its recipe.",
        ),
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: runs whose words clash, and record that.")
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Keep the model loaded and ask for prompts; :help lists more.")
    ] = False,
) -> None:
    """Draw what a run has learnt."""
    from dbcli.cli.interactive.session import sit_down
    from dbcli.cli.output.listings import show_generated
    from dbcli.workflows.generation.generate import generate as generate_images
    from dbcli.workflows.generation.request import GenerateRequest, RunSelection

    call = of(context)
    options = {
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
    request = GenerateRequest(prompts or (), selection, options, seed, (width, height), grid, out, like)
    if interactive:
        return sit_down(call, request)
    if not prompts and not like:
        request = replace(request, prompts=[call.wanted(None, "PROMPT", "What shall be drawn")])
    show_generated(call.screen, generate_images(call.layout(), request, call.screen, offline=call.offline))
