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
    from dbcli.cli.interactive.questions import check_start, subjects_and_identifiers
    from dbcli.cli.output.runs import show_run
    from dbcli.cli.output.training_plan import show_headline, show_plan
    from dbcli.workflows.training.metric_loggers import logged
    from dbcli.workflows.training.plan import check_plan, plan_training, resumed_estimate, with_estimate
    from dbcli.workflows.training.resuming import Asked, plan_resume
    from dbcli.workflows.training.run import resume_training, start_training

    call, processes = called_with(context, gpus, dry_run=dry_run)
    layout, how_run = call.layout(), {"offline": call.offline, "processes": processes}
    check_start(start_from, no_rehearsal, resume)
    if all_settings and not dry_run:
        raise UsageError("--all-settings is about --dry-run, which is missing.", hint="add --dry-run")
    flags: dict[str, object] = {"method": method, "train.steps": steps, "train.seed": seed, "probe.stop": stop}
    with logged(call.screen, layout, log_to or [], offline=call.offline) as progress:
        if resume is not None:
            asked = Asked(names_in(subject), token or [], profile, sets or [], flags, allow_collision)
            resumed = plan_resume(layout, None if resume == NEWEST else resume, asked, progress)
            if dry_run:
                plan = resumed_estimate(layout, resumed)
                show_headline(call.screen, plan)
                return show_plan(call.screen, plan, layout, every_setting=all_settings)
            return show_run(call.screen, resume_training(layout, resumed, progress, **how_run), layout)
        names, words = subjects_and_identifiers(
            call, layout, names_in(subject), token or [], start_from, allow_collision=allow_collision
        )
        flags |= {"train.rehearsal_share": 0.0} if no_rehearsal else {}
        how = {"profile": profile, "sets": sets or [], "flags": flags, "allow_collision": allow_collision}
        plan = plan_training(layout, names, identifiers=words, start_from=start_from, progress=progress, **how)
        if dry_run:
            check_plan(layout, plan)
            show_headline(call.screen, plan)
        plan = with_estimate(layout, plan, sets=sets or [], flags=flags, progress=progress, asked=dry_run)
        if dry_run:
            return show_plan(call.screen, plan, layout, every_setting=all_settings)
        return show_run(call.screen, start_training(layout, plan, progress, **how_run), layout)
