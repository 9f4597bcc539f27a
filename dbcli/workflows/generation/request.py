"""What a caller wants generated, in one piece from the command line down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbcli.workflows.generation.lora_mix import RunSelection


@dataclass(frozen=True)
class GenerateRequest:
    """Prompts, runs and settings; None where nobody said.

    `flags` are keys of the profile's `draw` section, `size` is width and height in px, and `like` an image whose recipe
    fills in what is left open. Images go to `out`, or to the run's images/.
    """

    prompts: Sequence[str] = ()
    selection: RunSelection = field(default_factory=RunSelection)
    flags: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    size: tuple[int | None, int | None] = (None, None)
    grid: bool = False
    out: Path | None = None
    like: Path | None = None
