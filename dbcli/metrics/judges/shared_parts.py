"""Masks without a segmentation model: the subject is what the photos of one subject have in common.

Cosegmentation (Rother et al., 2006) on the maps of `tiny-dino`, the ImageNet network that ships with the program: a
place counts for as much as the other photos have places like it. Needs photos whose backgrounds differ; what never
changes behind the subject is taken for a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

# Maps [N, C, h, w] of each of N images, one tensor a stage of a network.
Maps = Callable[[Sequence[Image.Image]], list[torch.Tensor]]

MASK_PX = 32
# Like places in another photo that are looked for: more would punish small subjects.
NEAREST = 3
# Quantiles of a photo's values that become black and white.
BLACK, WHITE = 0.35, 0.92
# Weight of a photo's edge against its middle, and where it begins to fall, in half sides.
EDGE_WEIGHT, EDGE_WIDTH = 0.35, 0.6
FEWEST = 2


def shared_parts(maps: Maps, photos: Sequence[Image.Image]) -> torch.Tensor:
    """How much each place of N photos, two or more, belongs to what they share: float32 `[N, 32, 32]` in [0, 1]."""
    stages = [_resized(_likeness(found)) for found in maps(photos)]
    total = torch.stack(stages).sum(0)
    flat = total.flatten(1)
    black, white = (flat.quantile(one, dim=1)[:, None, None] for one in (BLACK, WHITE))
    stretched = ((total - black) / (white - black).clamp_min(1e-6)).clamp(0, 1) * _middle()
    smooth = F.avg_pool2d(F.pad(stretched[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]
    return smooth / smooth.flatten(1).amax(1).clamp_min(1e-6)[:, None, None]


def draft_masks(maps: Maps, photos: Sequence[Image.Image]) -> list[Image.Image | None]:
    """A mask of mode L and its photo's size for each photo; None for each where there are too few to compare."""
    if len(photos) < FEWEST:
        return [None] * len(photos)
    found = (shared_parts(maps, photos) * 255).round().byte().numpy()
    return [
        Image.fromarray(one).resize(photo.size, Image.Resampling.BICUBIC)
        for one, photo in zip(found, photos, strict=True)
    ]


def _likeness(found: torch.Tensor) -> torch.Tensor:
    """The cosine of each place of `[N, C, h, w]` to like places in the nearer half of the other photos, `[N, h, w]`."""
    count, channels, height, width = found.shape
    places = found.flatten(2).transpose(1, 2)
    flat = places.reshape(-1, channels)
    # Without this the strongest channels make all places alike.
    units = F.normalize((places - flat.mean(0)) / flat.std(0).clamp_min(1e-5), dim=-1)
    rows = []
    for own in range(count):
        others = [units[own] @ units[other].T for other in range(count) if other != own]
        nearest = torch.stack([one.topk(min(NEAREST, one.shape[1]), dim=1).values.mean(1) for one in others])
        rows.append(nearest.topk(-(-len(others) // 2), dim=0).values.mean(0))
    return torch.stack(rows).view(count, height, width)


def _resized(values: torch.Tensor) -> torch.Tensor:
    return F.interpolate(values[:, None], (MASK_PX, MASK_PX), mode="bilinear", align_corners=False)[:, 0]


def _middle() -> torch.Tensor:
    """`[32, 32]`, 1 in the middle and less towards the edges: things are seldom photographed at one."""
    place = torch.linspace(-1, 1, MASK_PX)
    near = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * EDGE_WIDTH**2))
    return EDGE_WEIGHT + (1 - EDGE_WEIGHT) * near
