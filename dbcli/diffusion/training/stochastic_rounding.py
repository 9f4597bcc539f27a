"""Weights in bfloat16 that go on learning: rounded up or down by chance, so that small steps are not all lost."""

from __future__ import annotations

import torch

DROPPED_BITS = 16  # a float32 has sixteen more bits behind a bfloat16's last


def stochastically_rounded(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 to bfloat16, up or down with the chance that makes the mean right (Gupta et al. 2015, section 3.1).

    A value halfway between two bfloat16 numbers becomes either in half of the cases, one a quarter above the lower
    the upper in a quarter. Numbers that bfloat16 has, infinities and what is no number stay what they are.
    """
    bits = values.view(torch.int32)
    noise = torch.randint(
        0, 1 << DROPPED_BITS, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    # The bits of a float grow with its magnitude, so adding below the cut carries into the last kept bit by chance.
    rounded = ((bits + noise) & -(1 << DROPPED_BITS)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)
