"""Where every random number of a run comes from.

A number depends on (run seed, purpose, step, sample) and on nothing else: not on the loader's order, the
batch size of an earlier stage, the device, or how often a run was interrupted.
"""

import hashlib
from collections.abc import Sequence

import torch

# Seeds lie below it.
SEED_RANGE = 1 << 63


def seed_for(run_seed: int, purpose: str, step: int = 0, sample: int = 0) -> int:
    """A 63-bit seed for one draw, spread by SHA-256 so that neighbouring counters are unrelated."""
    key = f"{run_seed}/{purpose}/{step}/{sample}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def generator_for(run_seed: int, purpose: str, step: int = 0, sample: int = 0) -> torch.Generator:
    """A CPU generator for one draw; CPU, so that the numbers are the same on every device."""
    return torch.Generator("cpu").manual_seed(seed_for(run_seed, purpose, step, sample))


def normal_rows(shape: Sequence[int], run_seed: int, purpose: str, step: int, samples: Sequence[int]) -> torch.Tensor:
    """Standard normal float32 `[len(samples), *shape]` on the CPU, one generator a row."""
    rows = [torch.randn(*shape, generator=generator_for(run_seed, purpose, step, sample)) for sample in samples]
    return torch.stack(rows)


def permutation_of(count: int, run_seed: int, purpose: str, epoch: int, sample: int = 0) -> list[int]:
    """A random order of range(count) for one epoch."""
    return torch.randperm(count, generator=generator_for(run_seed, purpose, epoch, sample)).tolist()
