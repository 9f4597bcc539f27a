"""What a caller wants scored, in one piece from the command line down."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ScoringOptions:
    """Which prompts images are generated of and by which judges they are scored; None where nobody said.

    `dataset` is a copy of google/dreambooth's, whose prompts are one more suite; `count` is images per prompt, `seed`
    that of each prompt's first image; `faces` says whether faces are scored, those of people if nobody said.
    """

    suites: Sequence[str] = ()
    prompts_file: Path | None = None
    dataset: Path | None = None
    judge: str | None = None
    count: int | None = None
    seed: int | None = None
    faces: bool | None = None


@dataclass(frozen=True)
class EvaluateRequest:
    """Scores of one run, the newest finished one if none is named.

    `masked` blanks backgrounds; `checkpoint` scores the run as it was after that step.
    """

    run: str | None = None
    scoring: ScoringOptions = field(default_factory=ScoringOptions)
    keep_identifier: bool = False
    masked: bool = False
    checkpoint: int | None = None
    grid: bool = False
