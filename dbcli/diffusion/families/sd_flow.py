"""Stable Diffusion's networks under flow matching, `tiny-flow`: asked for velocities, its UNet answers what it learnt.

A level s of flow and a timestep t of diffusion are the same mixture, but for its size, where their ratios of signal to
noise are the same: (1 - s)^2 / s^2 = a_t / (1 - a_t). With n = sqrt((1 - s)^2 + s^2), c = (1 - s) / n and g = s / n,
the latents x_s / n = c x0 + g e are diffusion's at t, where the UNet says v = c e - g x0. Then e = g x_s / n + c v and
x0 = c x_s / n - g v, and the velocity of flow is e - x0.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Size
from dbcli.diffusion.families.process import Flow
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.precision import where_float64_is
from dbcli.diffusion.schedulers.samplers import alphas_of

# What the embedded base was trained with.
TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@cache
def _log_ratios() -> list[float]:
    """log(a_t / (1 - a_t)) of every timestep, falling."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    # The first to ask may be an estimate, whose tensors have no values.
    with unset_fake_temporarily(), torch.device("cpu"):
        found: list[float] = torch.logit(alphas_of(TABLE).double()).tolist()
    return found


def timesteps_of(shares: torch.Tensor) -> torch.Tensor:
    """The timesteps, float32 `[B]` with fractions, whose signal-to-noise ratio is that of levels `[B]`.

    Beyond the table it is the first or the last.
    """
    exact = where_float64_is(shares)
    table = torch.tensor(_log_ratios(), dtype=torch.float64, device=exact.device).flip(0)
    wanted = (2 * torch.logit(1 - exact.double())).clamp(table[0], table[-1])
    above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
    low, high = table[above - 1], table[above]
    place = above - 1 + (wanted - low) / (high - low)
    return (len(table) - 1 - place).float().to(shares.device)


def denoise(network: Any, latents: torch.Tensor, levels: Any, conditioning: Conditioning, size: Size) -> torch.Tensor:
    """The velocity of flow, by the UNet's prediction of v at the timestep of the same ratio."""
    shares = levels.expand(len(latents)).float()
    by_row = shares.view(-1, 1, 1, 1)
    norm = ((1 - by_row).square() + by_row.square()).sqrt()
    clean, noise = (1 - by_row) / norm, by_row / norm
    mixed = latents / norm
    predicted = network(mixed.to(latents.dtype), timesteps_of(shares), conditioning.states).sample.float()
    velocity: torch.Tensor = (noise - clean) * mixed + (clean + noise) * predicted
    return velocity


SD_FLOW = replace(SD, name="sd-flow", process=Flow, denoise=denoise, exports=("lora", "kohya"))
