"""What shall be generated, as it comes from the command line to the workflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Here for the conversation on a terminal, which reaches the project through workflows alone.
from dbcli.project.seeds import first_of_next as first_of_next
from dbcli.project.seeds import first_seed as first_seed

# Width and height in px, None for the base's own.
Size = tuple[int | None, int | None]


@dataclass(frozen=True)
class RunSelection:
    """Runs as a person names them: none for the newest, one, or several LoRAs with "1,0.8" as their weights."""

    runs: Sequence[str] = ()
    weights: str | None = None
    allow_collision: bool = False
    checkpoint: int | None = None


@dataclass(frozen=True)
class ImageRecipe:
    """What an image's recipe filled in: its file's name and size, and whether prompts and negative prompt are its own.

    Those are text as it stands: braces in them name no subject.
    """

    name: str
    size: tuple[int, int] | None
    has_prompts: bool
    has_negative: bool


@dataclass(frozen=True)
class GenerateRequest:
    """What to generate and with what; `options` are keys of the `draw` settings, None where nobody said.

    `like` is an image whose recipe fills in what is left open; once it was read, `recipe` says what it gave.
    """

    prompts: Sequence[str] = ()
    selection: RunSelection = RunSelection()
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    size: Size = (None, None)
    grid: bool = False
    out: Path | None = None
    like: Path | None = None
    recipe: ImageRecipe | None = None
