"""Looking at runs and removing them."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands.scoring_options import FirstSeed, ImagesPerPrompt, Judge, Prompts, PromptsOfDataset, Suites
from dbcli.cli.invocation import of
from dbcli.errors import Refused

runs_app = typer.Typer(help="List, show, compare and remove runs.", no_args_is_help=True, rich_markup_mode=None)


@runs_app.command("list")
def list_runs(context: typer.Context) -> None:
    """All runs, oldest first."""
    from dbcli.cli.output.runs import show_runs
    from dbcli.workflows.runs.manage import all_runs, overview

    call = of(context)
    layout = call.layout()
    records, damaged = all_runs(layout)
    show_runs(call.screen, overview(layout, records), damaged)


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
    """One run: what it learnt, with which settings, how it went."""
    from dbcli.cli.output.runs import show_run
    from dbcli.workflows.runs.manage import one_run

    call = of(context)
    layout = call.layout()
    show_run(call.screen, one_run(layout, run), layout)


@runs_app.command("compare", short_help="Set runs side by side: a page, a grid, differences.")
def compare(
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs.", autocompletion=completion.runs)
    ],
    suite: Suites = None,
    prompts: Prompts = None,
    dataset: PromptsOfDataset = None,
    judge: Judge = None,
    count: ImagesPerPrompt = None,
    seed: FirstSeed = None,
) -> None:
    """Runs side by side: the same prompts and seeds, a page, a grid, and how sure each difference is."""
    from dbcli.cli.output.comparison import show_comparisons
    from dbcli.workflows.evaluation.compare import compare as set_side_by_side
    from dbcli.workflows.evaluation.request import ScoringOptions

    call = of(context)
    scoring = ScoringOptions(suite or [], prompts, dataset, judge, count, seed)
    made = set_side_by_side(call.layout(), runs, scoring, call.screen, offline=call.offline)
    show_comparisons(call.screen, made)


@runs_app.command("rm")
def remove(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Which run.", autocompletion=completion.runs)],
) -> None:
    """Remove a run with its weights and pictures."""
    from dbcli.workflows.runs.manage import exactly, remove

    call = of(context)
    layout = call.layout()
    record = exactly(layout, run)
    if not call.sure(f"Remove {record.name} with its weights and pictures?"):
        raise Refused(f"{record.name} is kept.", hint="add --yes to remove it without being asked")
    remove(layout, record.name)
    call.screen.document({"removed": record.name})
    call.screen.line(f"Removed {record.name}")
