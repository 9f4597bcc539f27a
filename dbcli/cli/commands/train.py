"""Training a subject, or going on with a run."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.arguments import NEWEST, names_in
from dbcli.cli.processes import Gpus, called_with
from dbcli.errors import UsageError


def train(
    context: typer.Context,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            "--subject",
            "--subjects",
            metavar="NAME,…",
            help="Which subject; several, with commas or repeated, train together.",
            autocompletion=completion.subjects,
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token",
            metavar="[NAME=]WORD",
            help="The identifier, the rare word that stands for the subject; NAME=WORD of several, repeated.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="full, lora or textual-inversion.", autocompletion=completion.methods),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="A shipped profile, a YAML file, or auto: what this machine has room for.",
            autocompletion=completion.profiles,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="How many optimiser steps.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Random seed for noise, order and crops; -1: a random one, recorded.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, like train.learning_rate=5e-6.",
            autocompletion=completion.settings,
        ),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option("--stop", help="auto: end when neither fidelity nor editability rises; never: take all steps."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Go on from a finished run, with its subjects kept in mind.",
            autocompletion=completion.runs,
        ),
    ] = None,
    no_rehearsal: Annotated[
        bool, typer.Option("--no-rehearsal", help="With --from: do not show the earlier subjects' photos again.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="[RUN]",
            help="Go on with an unfinished run, the newest by default; --steps and --set may change how.",
            autocompletion=completion.runs,
        ),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            "--log-to", help="tensorboard or wandb, beside the run's own record.", autocompletion=completion.logs
        ),
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: take a word that clashes, and record that.")
    ] = False,
    gpus: Gpus = 1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything, show the memory and time that it would take, and train nothing."
        ),
    ] = False,
    all_settings: Annotated[
        bool, typer.Option("--all-settings", help="With --dry-run: list every setting, not only those that differ.")
    ] = False,
) -> None:
    """Teach the base a subject."""
    from dbcli.cli.interactive.questions import check_start, with_answers
    from dbcli.cli.output.runs import show_run
    from dbcli.cli.output.training_plan import show_headline, show_plan
    from dbcli.workflows.training.metric_loggers import logged
    from dbcli.workflows.training.plan import check_plan, plan_training, with_estimate
    from dbcli.workflows.training.request import TrainRequest
    from dbcli.workflows.training.resuming import plan_resume
    from dbcli.workflows.training.run import train_run

    call, processes = called_with(context, gpus, dry_run=dry_run)
    layout = call.layout()
    check_start(start_from, no_rehearsal, resume)
    if all_settings and not dry_run:
        raise UsageError("--all-settings is about --dry-run, which is missing.", hint="add --dry-run")
    request = TrainRequest(
        subjects=names_in(subject),
        tokens=token or [],
        profile=profile,
        sets=sets or [],
        method=method,
        steps=steps,
        seed=seed,
        stop=stop,
        start_from=start_from,
        rehearse=not no_rehearsal,
        allow_collision=allow_collision,
    )
    with logged(call.screen, layout, log_to or [], offline=call.offline) as progress:
        if resume is not None:
            plan = plan_resume(layout, None if resume == NEWEST else resume, request, progress)
        else:
            request = with_answers(call, layout, request)
            plan = plan_training(layout, request, progress)
        if dry_run:
            check_plan(layout, plan)
            show_headline(call.screen, plan)
        plan = with_estimate(layout, plan, request, progress, asked=dry_run)
        if dry_run:
            return show_plan(call.screen, plan, layout, every_setting=all_settings)
        record = train_run(layout, plan, progress, offline=call.offline, processes=processes)
        return show_run(call.screen, record, layout)
