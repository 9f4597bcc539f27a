"""Many runs with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.arguments import names_in
from dbcli.cli.commands.scoring_options import FirstSeed, Suites
from dbcli.cli.invocation import of

Subjects = Annotated[
    list[str] | None,
    typer.Option(
        "--subject",
        "--subjects",
        metavar="NAME,…",
        help="Which subjects; several with commas, or repeated.",
        autocompletion=completion.subjects,
    ),
]
Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="DIR", help="A copy of google/dreambooth's dataset that brings subjects."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for every run.", autocompletion=completion.settings),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="local, one after another; or ray.", autocompletion=completion.engines)
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="With --engine ray: the cluster; else one is started on this machine."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and how far they are, and do nothing.")]


def sweep(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A YAML file, or a sweep that ships.", autocompletion=completion.sweeps),
    ] = None,
    subject: Subjects = None,
    dataset: Dataset = None,
    sets: Sets = None,
    engine: EngineName = "local",
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Train, draw and score every cell of a grid; started again, it goes on where it was."""
    from dbcli.cli.output.sweeps import carry_out
    from dbcli.workflows.completions import sweep_names
    from dbcli.workflows.sweeps.run import plan_file

    call = of(context)
    layout = call.layout()
    name = call.wanted(file, "FILE", f"Which sweep ({', '.join(sweep_names())}, or a file)")
    plan = plan_file(
        layout, name, subjects=names_in(subject), dataset=dataset, sets=sets or [], dry=dry_run, progress=call.screen
    )
    raise typer.Exit(carry_out(call, layout, plan, engine=engine, address=address, dry_run=dry_run))


def bench(
    context: typer.Context,
    subject: Subjects = None,
    dataset: Dataset = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="A shipped profile or a YAML file.", autocompletion=completion.profiles),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="How to teach; see train.", autocompletion=completion.methods)
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="How many optimiser steps a subject.")] = None,
    sets: Sets = None,
    suite: Suites = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            help="paper, paper-l or tiny; none draws only.",
            autocompletion=completion.judges,
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Pictures a prompt.")] = 4,
    seed: FirstSeed = None,
    name: Annotated[str | None, typer.Option("--name", help="Its folder under sweeps/.")] = None,
    engine: EngineName = "local",
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Train and score many subjects by one recipe, beside the published values."""
    from dbcli.cli.output.sweeps import carry_out, settings_given
    from dbcli.workflows.sweeps.bench import plan_bench

    call = of(context)
    layout = call.layout()
    how = {"profile": profile, "suites": suite or [], "judge": judge, "count": count, "seed": seed, "name": name}
    settings = settings_given(sets or [], method=method, steps=steps)
    plan = plan_bench(
        layout, subjects=names_in(subject), dataset=dataset, settings=settings, dry=dry_run, progress=call.screen, **how
    )
    raise typer.Exit(carry_out(call, layout, plan, engine=engine, address=address, dry_run=dry_run))
