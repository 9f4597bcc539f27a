"""Options that several commands share: one name, one meaning, one help text."""

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli import completion


def from_home(path: Path | None) -> Path | None:
    """A path with its `~` expanded, which a shell leaves as it is behind `--out=`."""
    return None if path is None else path.expanduser()


Subjects = Annotated[
    list[str] | None,
    typer.Option(
        "--subject",
        "--subjects",
        metavar="NAME,…",
        help="Which subject; several with commas, or repeated.",
        autocompletion=completion.subjects,
    ),
]
Run = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Which run: its number, its name or a subject; the newest finished by default.",
        autocompletion=completion.runs,
    ),
]
Profile = Annotated[
    str | None, typer.Option("--profile", help="A shipped profile or a YAML file.", autocompletion=completion.profiles)
]
Method = Annotated[
    str | None, typer.Option("--method", help="full, lora or textual-inversion.", autocompletion=completion.methods)
]
Steps = Annotated[int | None, typer.Option("--steps", help="Number of optimiser steps.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, like train.learning_rate=5e-6; repeatable.",
        autocompletion=completion.settings,
    ),
]
Checkpoint = Annotated[
    int | None,
    typer.Option("--checkpoint", metavar="STEP", help="The run as it was after STEP, instead of its final weights."),
]
Token = Annotated[
    str | None, typer.Option("--token", metavar="WORD", help="Its identifier: the rare word that stands for it.")
]
ClassNoun = Annotated[
    str | None,
    typer.Option("--class", metavar="NOUN", help="Its class noun: what it is, in a word or two, like dog or backpack."),
]
AllowCollision = Annotated[
    bool, typer.Option("--allow-collision", help="For research: allow words that collide, and record it.")
]
# What is scored, and by whom.
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        help="A shipped suite, a YAML file or a .txt list of prompts; repeatable.",
        autocompletion=completion.suites,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="Your own prompts, one per line.", callback=from_home),
]
PromptsOfDataset = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        metavar="DIR",
        help="Prompts from a copy of google/dreambooth's dataset.",
        callback=from_home,
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge", help="paper, paper-l or tiny; the base decides by default.", autocompletion=completion.judges
    ),
]
Faces = Annotated[
    bool | None,
    typer.Option("--faces/--no-faces", help="Score faces too; by default those of people, if the extra is installed."),
]
ImagesPerPrompt = Annotated[
    int | None, typer.Option("-n", "--count", help="Images per prompt; 4 by default, as in the paper.")
]
FirstSeed = Annotated[int | None, typer.Option("--seed", help="Seed of each prompt's first image; -1: random.")]
