"""What is scored and by whom: the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion

Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", help="A shipped suite or a YAML file; repeatable.", autocompletion=completion.suites),
]
Prompts = Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="Your own prompts, one a line.")]
PromptsOfDataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="DIR", help="The prompts of a copy of google/dreambooth's dataset."),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge", help="paper, paper-l or tiny; by the project's base if left out.", autocompletion=completion.judges
    ),
]
ImagesPerPrompt = Annotated[int | None, typer.Option("-n", "--count", help="Pictures a prompt, 4 as in the paper.")]
FirstSeed = Annotated[int | None, typer.Option("--seed", help="Seed of each prompt's first image; -1: random.")]
