"""Masks without a segmentation model: the subject is what the photos of one subject have in common.

Cosegmentation (Rother et al., 2006) on the maps of `tiny-dino`, the ImageNet network that ships with the program: a
place counts for as much as the other photos have places like it. Needs photos whose backgrounds differ; what never
changes behind the subject is taken for a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from dbcli.metrics.judges.mask_colours import sharpened, small

# Maps [C, h, w] of an image, one tensor a stage of a network.
Maps = Callable[[Image.Image], list[torch.Tensor]]

MASK_PX = 32
# Like places in another photo that are looked for: more would punish small subjects.
NEAREST = 3
# Other photos that one is compared with, spread over all: with each of 500 it would take hours.
MOST_COMPARED = 8
# Quantiles of a photo's values that become black and white.
BLACK, WHITE = 0.35, 0.92
# Weight of a photo's edge against its middle, and where it begins to fall, in half sides.
EDGE_WEIGHT, EDGE_WIDTH = 0.35, 0.6
FEWEST = 2


def draft_masks(maps: Maps, photos: Iterable[Image.Image], wanted: Sequence[int]) -> Iterator[Image.Image]:
    """A mask of mode L and its photo's size for each of the `wanted` photos, by their places; each photo is read once.

    Raises ValueError for fewer than FEWEST photos, which have nothing to be compared with.
    """
    sizes, found, seen = [], [], []
    for photo in photos:
        sizes.append(photo.size)
        found.append(maps(photo))
        seen.append(small(photo))
    drafts = list(shared_parts(found, wanted))
    for place, mask in zip(wanted, sharpened([seen[place] for place in wanted], drafts), strict=True):
        values = (mask * 255).round().byte().numpy()
        yield Image.fromarray(values).resize(sizes[place], Image.Resampling.BICUBIC)


def shared_parts(found: Sequence[Sequence[torch.Tensor]], wanted: Sequence[int]) -> Iterator[torch.Tensor]:
    """How much each place of the `wanted` of N photos, given by their maps, belongs to what they share.

    Yields float32 `[32, 32]` in [0, 1] for each. Raises ValueError for fewer than FEWEST photos.
    """
    if len(found) < FEWEST:
        raise ValueError(f"{len(found)} photos: there is nothing to compare one with")
    stages = [torch.stack(list(stage)) for stage in zip(*found, strict=True)]
    units = [_units(stage) for stage in stages]
    for own in wanted:
        others = compared_with(own, len(found))
        parts = [_likeness(unit, own, others).view(stage.shape[-2:]) for unit, stage in zip(units, stages, strict=True)]
        yield _as_mask(torch.stack([_resized(part) for part in parts]).sum(0))


def compared_with(own: int, count: int) -> list[int]:
    """The other photos, of `count`, that one is compared with: all of a few, else some spread over all."""
    others = [place for place in range(count) if place != own]
    if len(others) <= MOST_COMPARED:
        return others
    return [others[place * len(others) // MOST_COMPARED] for place in range(MOST_COMPARED)]


def _units(stage: torch.Tensor) -> torch.Tensor:
    """Places of `[N, C, h, w]` as standardised rows of length 1, `[N, h w, C]`."""
    places = stage.flatten(2).transpose(1, 2)
    flat = places.reshape(-1, places.shape[-1])
    # Without this the strongest channels make all places alike.
    return F.normalize((places - flat.mean(0)) / flat.std(0).clamp_min(1e-5), dim=-1)


def _likeness(units: torch.Tensor, own: int, others: Sequence[int]) -> torch.Tensor:
    """The cosine of each place of one photo to like places in the nearer half of others, `[h w]`."""
    cosines = [units[own] @ units[other].T for other in others]
    nearest = torch.stack([one.topk(min(NEAREST, one.shape[1]), dim=1).values.mean(1) for one in cosines])
    return nearest.topk(-(-len(others) // 2), dim=0).values.mean(0)


def _as_mask(likeness: torch.Tensor) -> torch.Tensor:
    black, white = (likeness.flatten().quantile(one) for one in (BLACK, WHITE))
    stretched = ((likeness - black) / (white - black).clamp_min(1e-6)).clamp(0, 1) * _middle()
    smooth = F.avg_pool2d(F.pad(stretched[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
    return smooth / smooth.amax().clamp_min(1e-6)


def _resized(values: torch.Tensor) -> torch.Tensor:
    return F.interpolate(values[None, None], (MASK_PX, MASK_PX), mode="bilinear", align_corners=False)[0, 0]


def _middle() -> torch.Tensor:
    """`[32, 32]`, 1 in the middle and less towards the edges: things are seldom photographed at one."""
    place = torch.linspace(-1, 1, MASK_PX)
    near = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * EDGE_WIDTH**2))
    return EDGE_WEIGHT + (1 - EDGE_WEIGHT) * near
