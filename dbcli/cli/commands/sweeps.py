"""Many runs with one command."""

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.arguments import names_in
from dbcli.cli.commands import options
from dbcli.cli.invocation import of

Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="DIR", help="A copy of google/dreambooth's dataset, to take subjects from."),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="local (one after another) or ray.", autocompletion=completion.engines)
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="With --engine ray: the cluster; by default one is started on this machine."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and their progress, and run nothing.")]


def sweep(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A YAML file, or a shipped sweep.", autocompletion=completion.sweeps),
    ] = None,
    subject: options.Subjects = None,
    dataset: Dataset = None,
    sets: options.Settings = None,
    engine: EngineName = "local",
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Train, generate and score every cell of a grid; started again, it continues where it stopped."""
    from dbcli.cli.output.sweeps import carry_out
    from dbcli.workflows.completions import sweep_names
    from dbcli.workflows.sweeps.engines import EngineOptions
    from dbcli.workflows.sweeps.plan import SweepRequest, plan_file

    call = of(context)
    layout = call.layout
    name = call.wanted(file, "FILE", f"Which sweep ({', '.join(sweep_names())}, or a file)")
    request = SweepRequest(name, names_in(subject), dataset, sets or [], dry_run)
    plan = plan_file(layout, request, call.screen)
    raise typer.Exit(carry_out(call, plan, EngineOptions(engine, address), dry_run=dry_run))


def bench(
    context: typer.Context,
    subject: options.Subjects = None,
    dataset: Dataset = None,
    profile: options.Profile = None,
    method: options.Method = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Number of optimiser steps per subject.")] = None,
    sets: options.Settings = None,
    suite: options.Suites = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="paper, paper-l or tiny; none: no scores.", autocompletion=completion.judges),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Images per prompt.")] = 4,
    seed: options.FirstSeed = None,
    name: Annotated[str | None, typer.Option("--name", help="Its folder name under sweeps/.")] = None,
    engine: EngineName = "local",
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Train and score many subjects with one recipe, beside the published scores where the judges are the paper's."""
    from dbcli.cli.output.sweeps import carry_out
    from dbcli.workflows.sweeps.bench import BenchRequest, plan_bench
    from dbcli.workflows.sweeps.engines import EngineOptions

    call = of(context)
    request = BenchRequest(
        subjects=names_in(subject),
        dataset=dataset,
        profile=profile,
        method=method,
        steps=steps,
        sets=sets or [],
        suites=suite or [],
        count=count,
        seed=seed,
        judge=judge,
        name=name,
        dry=dry_run,
    )
    plan = plan_bench(call.layout, request, call.screen)
    raise typer.Exit(carry_out(call, plan, EngineOptions(engine, address), dry_run=dry_run))
