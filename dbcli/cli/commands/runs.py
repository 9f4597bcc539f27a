"""Looking at runs and removing them."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of

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
) -> None:
    """Compare runs on the same prompts and seeds: a page, a grid, and how certain each difference is."""
    from dbcli.cli.output.scores import show_comparisons
    from dbcli.workflows.evaluation.compare import compare as set_side_by_side
    from dbcli.workflows.evaluation.request import ScoringOptions

    call = of(context)
    scoring = ScoringOptions(suite or [], prompts, dataset, judge, count, seed)
    made = set_side_by_side(call.layout, runs, scoring, call.screen, offline=call.offline)
    show_comparisons(call.screen, made)


@runs_app.command("rm")
def remove(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Which run.", autocompletion=completion.runs)],
) -> None:
    """Remove a run with its weights and images."""
    from dbcli.workflows.runs.manage import exactly, remove

    call = of(context)
    name = exactly(call.layout, run).name
    call.agree(f"Remove {name} with its weights and images?", f"{name} is kept.")
    remove(call.layout, name)
    call.screen.document({"removed": name})
    call.screen.line(f"Removed {name}")
