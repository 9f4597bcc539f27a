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


def multires_rows(
    shape: Sequence[int], run_seed: int, step: int, samples: Sequence[int], discount: float
) -> torch.Tensor:
    """What makes standard normal noise multi-resolution noise: the coarser levels of `[len(samples), C, H, W]`.

    Level i is noise of 1 / 2^i the size, enlarged bilinearly and times discount^i, down to a single value a channel
    (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training", whose factors are random ones from 2 to 4).
    """
    channels, height, width = shape
    total, level, size = torch.zeros(len(samples), *shape), 0, (height, width)
    while max(size) > 1:
        level, size = level + 1, (max(1, size[0] // 2), max(1, size[1] // 2))
        coarse = normal_rows((channels, *size), run_seed, f"noise of level {level}", step, samples)
        rows, columns = (_enlarging(one, to) for one, to in zip(size, (height, width), strict=True))
        total += discount**level * torch.einsum("bchw,hy,wx->bcyx", coarse, rows, columns)
    return total


def multires_variance(height: int, width: int, discount: float) -> torch.Tensor:
    """The variance `[height, width]` of standard normal noise with its coarser levels of `multires_rows`.

    Enlarging averages values, more of them between two than upon one: so it is not the same everywhere.
    """
    total, level, size = torch.ones(height, width), 0, (height, width)
    while max(size) > 1:
        level, size = level + 1, (max(1, size[0] // 2), max(1, size[1] // 2))
        rows, columns = (_enlarging(one, to).square().sum(0) for one, to in zip(size, (height, width), strict=True))
        total += discount ** (2 * level) * torch.outer(rows, columns)
    return total


def _enlarging(size: int, to: int) -> torch.Tensor:
    """The weights `[size, to]` of a line of values in a longer one, bilinearly."""
    return torch.nn.functional.interpolate(torch.eye(size)[None], size=to, mode="linear", align_corners=False)[0]


def permutation_of(count: int, run_seed: int, purpose: str, epoch: int, sample: int = 0) -> list[int]:
    """A random order of range(count) for one epoch."""
    return torch.randperm(count, generator=generator_for(run_seed, purpose, epoch, sample)).tolist()
