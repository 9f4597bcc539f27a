"""Discs on grounds, as photos of a subject whose mask is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F

RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (60, 160, 60)


def disc(x: float, y: float, radius: float, side: int = 96) -> torch.Tensor:
    place = torch.arange(side, dtype=torch.float32)
    return ((place[None] - x) ** 2 + (place[:, None] - y) ** 2 <= radius**2).float()


def photo_of(mask: torch.Tensor, thing: tuple[int, int, int], ground: tuple[int, int, int]) -> torch.Tensor:
    """A thing on a ground, with some noise, uint8 `[3, h, w]`."""
    colours = torch.tensor([ground, thing], dtype=torch.float32)[mask.long()].permute(2, 0, 1)
    noise = torch.randn(colours.shape, generator=torch.Generator().manual_seed(1)) * 6
    return (colours + noise).clamp(0, 255).byte()


def draft_of(mask: torch.Tensor) -> torch.Tensor:
    """A mask as judges draw it: 32 places a side, wide edges."""
    coarse = F.interpolate(mask[None, None], (32, 32), mode="area")
    return F.avg_pool2d(F.pad(coarse, (4, 4, 4, 4), mode="replicate"), 9, 1)[0, 0]


def overlap(found: torch.Tensor, true: torch.Tensor) -> float:
    shown = found > 0.5
    return float((shown & true.bool()).sum() / (shown | true.bool()).sum())
