"""Which ranks of a LoRA are in force at which timestep: T-LoRA (Soboleva et al. 2025, arXiv:2507.05964).

Other programs know nothing of it. A run keeps its schedule in the metadata of its file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from dbcli.errors import UnsafeFile

METADATA_KEY = "dreambooth_timestep_ranks"
# As many as a base's scheduler may have.
MOST_TIMESTEPS = 100_000


@dataclass(frozen=True)
class TimestepRanks:
    """`least` ranks at the noisiest timestep, all of them at 0, linearly between; of `timesteps` in all.

    With `halves` the second half of the ranks takes away what the first began with, and goes by the same timesteps.
    """

    least: int
    timesteps: int
    halves: bool = False

    def last_timesteps(self, rank: int) -> torch.Tensor:
        """The noisiest timestep at which each of `rank` ranks is in force, float32 `[rank]`.

        Rank i is in force where i < floor((T - t) / T · (R - least)) + least.
        """
        whole = rank // 2 if self.halves else rank
        rising = whole - self.least
        found = [
            math.inf if place < self.least else self.timesteps * (1 - (place - self.least + 1) / rising)
            for place in range(whole)
        ]
        return torch.tensor(found * (2 if self.halves else 1), dtype=torch.float32)

    @property
    def metadata(self) -> dict[str, str]:
        """As a file's metadata says it."""
        return {METADATA_KEY: json.dumps(asdict(self), sort_keys=True)}


def schedule_of(metadata: Mapping[str, str], file: str) -> TimestepRanks | None:
    """The schedule that a file's metadata says, if any. Raises UnsafeFile where it makes no sense."""
    text = metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        found = json.loads(text)
        schedule = TimestepRanks(int(found["least"]), int(found["timesteps"]), bool(found["halves"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UnsafeFile(f"{file}: its metadata '{METADATA_KEY}' is no schedule of ranks.") from error
    if schedule.least < 1 or not 1 <= schedule.timesteps <= MOST_TIMESTEPS:
        raise UnsafeFile(f"{file}: its metadata '{METADATA_KEY}' is no schedule of ranks.")
    return schedule
