"""Training a subject, or going on with a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.arguments import NEWEST, names_in
from dbcli.cli.commands import options
from dbcli.cli.processes import Gpus, on_ranks
from dbcli.errors import UsageError

if TYPE_CHECKING:
    from dbcli.cli.invocation import Invocation
    from dbcli.workflows.progress import Progress
    from dbcli.workflows.training.plan import TrainingPlan


def train(
    context: typer.Context,
    subject: options.Subjects = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="[NAME=]WORD", help="The identifier, a rare word; NAME=WORD for several."),
    ] = None,
    method: options.Method = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="A shipped profile, a YAML file, or auto: the largest recipe that fits.",
            autocompletion=completion.profiles,
        ),
    ] = None,
    steps: options.Steps = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Random seed for noise, order and crops; -1: a random one, recorded.")
    ] = None,
    sets: options.Settings = None,
    stop: Annotated[
        str | None,
        typer.Option("--stop", help="auto: stop when fidelity and editability no longer rise; never: take all steps."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Continue a finished run, rehearsing its subjects.",
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
            help="Resume an unfinished run, the newest by default; --steps and --set may change its settings.",
            autocompletion=completion.runs,
        ),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="Also log to tensorboard or wandb.", autocompletion=completion.logs),
    ] = None,
    allow_collision: options.AllowCollision = False,
    gpus: Gpus = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, estimate memory and time, and train nothing.")
    ] = False,
    all_settings: Annotated[
        bool, typer.Option("--all-settings", help="With --dry-run: list every setting, not only those that differ.")
    ] = False,
) -> None:
    """Teach the base a subject."""
    from dbcli.cli.interactive.questions import check_start, with_answers
    from dbcli.cli.output.runs import show_run
    from dbcli.cli.output.training_plan import show_headline, show_plan
    from dbcli.workflows.launch import check_devices, launched_size
    from dbcli.workflows.training.metric_loggers import logged
    from dbcli.workflows.training.plan import check_plan, plan_training, with_estimate
    from dbcli.workflows.training.request import TrainRequest
    from dbcli.workflows.training.resuming import plan_resume
    from dbcli.workflows.training.run import train_run

    processes = max(gpus, launched_size())
    check_start(start_from, no_rehearsal, resume)
    if all_settings and not dry_run:
        raise UsageError("--all-settings needs --dry-run.", hint="add --dry-run")
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

    def planned(call: Invocation, progress: Progress) -> TrainingPlan:
        layout = call.layout
        if resume is not None:
            asked, plan = request, plan_resume(layout, None if resume == NEWEST else resume, request, progress)
        else:
            asked = with_answers(call, layout, request)
            plan = plan_training(layout, asked, progress)
        if dry_run:
            check_plan(layout, plan)
            training = plan.profile.train
            check_devices(processes, training.device, fused_backward=training.fused_backward)
            show_headline(call.screen, plan)
        return with_estimate(layout, plan, asked, progress, asked=dry_run, processes=processes)

    with on_ranks(context, gpus, dry_run=dry_run) as (call, group):
        logs = (log_to or []) if group.is_main else []
        with logged(call.screen, call.layout, logs, offline=call.offline) as progress:
            plan = group.on_main(lambda: planned(call, progress))
            if dry_run:
                return show_plan(call.screen, plan, call.layout, every_setting=all_settings)
            record = train_run(call.layout, plan, progress, offline=call.offline, group=group)
            return show_run(call.screen, record, call.layout)
