"""Scoring a run."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli.commands import options
from dbcli.cli.processes import Gpus, on_ranks


def evaluate(
    context: typer.Context,
    run: options.Run = None,
    suite: options.Suites = None,
    prompts: options.Prompts = None,
    dataset: options.PromptsOfDataset = None,
    judge: options.Judge = None,
    count: options.ImagesPerPrompt = None,
    seed: options.FirstSeed = None,
    keep_identifier: Annotated[
        bool, typer.Option("--keep-identifier", help="Leave the identifier in the text that CLIP-T scores.")
    ] = False,
    masked: Annotated[
        bool, typer.Option("--masked", help="Score the subject without its background, which CLIPSeg finds.")
    ] = False,
    checkpoint: options.Checkpoint = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write a grid: photos first, prompts as labels.")] = False,
    interference: Annotated[
        bool, typer.Option("--interference", help="Instead: do the run's subjects stay apart, and do their classes?")
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

    scoring = ScoringOptions(suite or [], prompts, dataset, judge, count, seed)
    request = EvaluateRequest(run, scoring, keep_identifier, masked, checkpoint, grid)
    with on_ranks(context, gpus, single="--interference" if interference or also else None) as (call, group):
        if interference or also:
            return show_interference(call, run, also or [], scoring, is_asked=interference)
        found = score(call.layout, request, call.screen, offline=call.offline, group=group)
        show_evaluations(call.screen, found)
