"""What a person asks of `train`, as it was typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainRequest:
    """The options of `train`; None, or nothing, where one was left out.

    `tokens` are identifiers: WORD for the only subject, NAME=WORD for one of several. `start_from` names the finished
    run to continue; without `subjects` its own are taught on.
    """

    subjects: Sequence[str] = ()
    tokens: Sequence[str] = ()
    profile: str | None = None
    sets: Sequence[str] = ()
    method: str | None = None
    steps: int | None = None
    seed: int | None = None
    stop: str | None = None
    start_from: str | None = None
    rehearse: bool = True
    allow_collision: bool = False

    @property
    def flags(self) -> dict[str, Any]:
        """The settings among the options that were given, by dotted key."""
        flags = {
            "method": self.method,
            "train.steps": self.steps,
            "train.seed": self.seed,
            "train.rehearsal_share": None if self.rehearse else 0.0,
            "probe.stop": self.stop,
        }
        return {key: value for key, value in flags.items() if value is not None}
