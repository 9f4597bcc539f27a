"""Scoring runs, comparing them, looking at them and removing them."""

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of
from dbcli.cli.processes import Gpus, on_ranks

runs_app = typer.Typer(help="List, show, compare and remove runs.", no_args_is_help=True, rich_markup_mode=None)


@runs_app.command("list")
def list_runs(context: typer.Context) -> None:
    """List all runs, oldest first."""
    from dbcli.cli.output.runs import show_runs
    from dbcli.workflows.runs.manage import all_runs, overview

    call = of(context)
    records, damaged = all_runs(call.layout)
    show_runs(call.screen, overview(call.layout, records), damaged)


@runs_app.command("show")
def show(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="3, 0003 or 0003-dog; the newest by default.", autocompletion=completion.runs
        ),
    ] = None,
) -> None:
    """Show one run: what it learnt, with which settings, and how it went."""
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.runs.manage import one_run

    call = of(context)
    show_run(call.screen, one_run(call.layout, run), call.layout)


@runs_app.command("compare", short_help="Compare runs: a page, a grid, and the differences.")
def compare(
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs.", autocompletion=completion.runs)
    ],
    suite: options.Suites = None,
    prompts: options.Prompts = None,
    dataset: options.PromptsOfDataset = None,
    judge: options.Judge = None,
    count: options.ImagesPerPrompt = None,
    seed: options.FirstSeed = None,
    faces: options.Faces = None,
) -> None:
    """Compare runs on the same prompts and seeds: a page, a grid, and how certain each difference is."""
    from dbcli.cli.output.scores import show_comparisons
    from dbcli.workflows.evaluation.compare import compare as set_side_by_side
    from dbcli.workflows.evaluation.request import ScoringOptions

    call = of(context)
    scoring = ScoringOptions(suite or [], prompts, dataset, judge, count, seed, faces)
    made = set_side_by_side(call.layout, runs, scoring, call.screen, offline=call.offline)
    show_comparisons(call.screen, made)


@runs_app.command("rm")
def remove(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Which run.", autocompletion=completion.runs)],
) -> None:
    """Remove a run with its weights and images."""
    from dbcli.workflows.runs.manage import exact_name, remove

    call = of(context)
    name = exact_name(call.layout, run)
    call.agree(f"Remove {name} with its weights and images?", f"{name} is kept.")
    remove(call.layout, name)
    call.screen.document({"removed": name})
    call.screen.line(f"Removed {name}")


def evaluate(
    context: typer.Context,
    run: options.Run = None,
    suite: options.Suites = None,
    prompts: options.Prompts = None,
    dataset: options.PromptsOfDataset = None,
    judge: options.Judge = None,
    count: options.ImagesPerPrompt = None,
    seed: options.FirstSeed = None,
    faces: options.Faces = None,
    keep_identifier: Annotated[
        bool, typer.Option("--keep-identifier", help="Leave the identifier in the text that CLIP-T scores.")
    ] = False,
    masked: Annotated[
        bool, typer.Option("--masked", help="Score the subject without its background, which CLIPSeg finds.")
    ] = False,
    checkpoint: options.Checkpoint = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write a grid: photos first, prompts as labels.")] = False,
    interference: Annotated[
        bool, typer.Option("--interference", help="Instead, measure whether subjects and classes stay apart.")
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="RUN", help="With --interference: LoRA runs to combine with --run."),
    ] = None,
    gpus: Gpus = 1,
) -> None:
    """Score a run: DINO, CLIP-I, CLIP-T and more, beside the photos' own values."""
    from dbcli.cli.output.scores import show_evaluations, show_interference
    from dbcli.workflows.evaluation.evaluate import evaluate as score
    from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions

    scoring = ScoringOptions(suite or [], prompts, dataset, judge, count, seed, faces)
    request = EvaluateRequest(run, scoring, keep_identifier, masked, checkpoint, grid)
    with on_ranks(context, gpus, single="--interference" if interference or also else None) as (call, group):
        if interference or also:
            return show_interference(call, request, also or [], is_asked=interference)
        found = score(call.layout, request, call.screen, offline=call.offline, group=group)
        show_evaluations(call.screen, found)
