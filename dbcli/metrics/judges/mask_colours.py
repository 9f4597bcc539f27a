"""Drafts of masks made sharp by colour: what is coloured as the subject is the subject, up to the photo's own edges.

Colours on and off the draft are counted (as in GrabCut: Rother, Kolmogorov and Blake, 2004, SIGGRAPH, with histograms
in place of mixtures and no cut), and the posterior is smoothed by a guided filter (He, Sun and Tang, 2010, ECCV), whose
edges are the photo's. A subject keeps its colours from photo to photo, so half of its histogram is that of all photos.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from dbcli.metrics.judges.plain_grounds import foreground

# The longer side that photos are looked at with, in px.
SIDE_PX = 192
BINS = 16
ROUNDS = 2
# Of the subject's colours, how much is the photo's own; the rest is the mean over all photos.
OWN_SHARE = 0.5
# How much a colour may say against the draft, and how sure the draft is at most.
MOST_SAID, SURE = 3.0, 0.05
# The guided filter's reach in px, and the variance of colour below which an area is taken for flat.
REACH, FLAT = 6, 1e-3


def small(photo: Image.Image) -> torch.Tensor:
    """A photo at SIDE_PX, uint8 `[3, h, w]`."""
    import numpy as np

    scale = SIDE_PX / max(photo.size)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    pixels = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def sharpened(photos: Sequence[torch.Tensor], drafts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Masks of photos of one subject, float32 `[h, w]` in [0, 1], from what `small` gives and drafts in [0, 1]."""
    priors = [_prior(photo, draft) for photo, draft in zip(photos, drafts, strict=True)]
    masks = priors
    for _ in range(ROUNDS):
        on = [_histogram(photo, mask) for photo, mask in zip(photos, masks, strict=True)]
        off = [_histogram(photo, 1 - mask) for photo, mask in zip(photos, masks, strict=True)]
        common = torch.stack(on).mean(0)
        masks = [
            _guided(photo, _posterior(photo, prior, OWN_SHARE * own + (1 - OWN_SHARE) * common, ground))
            for photo, prior, own, ground in zip(photos, priors, on, off, strict=True)
        ]
    yield from masks


def _prior(photo: torch.Tensor, draft: torch.Tensor) -> torch.Tensor:
    """The draft at the photo's size `[h, w]`; before a plain ground, what stands out from it, more where both agree."""
    large = F.interpolate(draft[None, None], photo.shape[1:], mode="bicubic", align_corners=False).clamp(0, 1)[0, 0]
    out = foreground(photo)
    return large if out is None else out * (1 + large) / 2


def _posterior(photo: torch.Tensor, prior: torch.Tensor, on: torch.Tensor, off: torch.Tensor) -> torch.Tensor:
    """The draft and what each place's colour says for it or against it, `[h, w]` in (0, 1)."""
    said = (_looked_up(on, photo) / _looked_up(off, photo)).log().clamp(-MOST_SAID, MOST_SAID)
    return torch.sigmoid(torch.logit(prior.clamp(SURE, 1 - SURE)) + said)


def _histogram(photo: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """How often each colour is seen under weights `[h, w]`, smoothed over neighbours, `[BINS, BINS, BINS]`, sum 1."""
    red, green, blue = (photo.long() * BINS // 256).flatten(1)
    counts = torch.zeros(BINS**3).index_add_(0, (red * BINS + green) * BINS + blue, weights.flatten())
    cube = (counts / counts.sum().clamp_min(1e-6)).view(1, 1, BINS, BINS, BINS)
    near = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = near[:, None, None] * near[:, None] * near
    return F.conv3d(cube, kernel[None, None], padding=1)[0, 0]


def _looked_up(cube: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """A histogram's value for each place's colour, between bins where a colour lies between them, `[h, w]`."""
    # The last coordinate of a grid is the first dimension of what it looks into.
    colours = (photo.float() / 127.5 - 1).permute(1, 2, 0).flip(-1)
    found = F.grid_sample(cube[None, None], colours[None, None], padding_mode="border", align_corners=False)
    return found[0, 0, 0] + 1e-6


def _guided(photo: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values `[h, w]` smoothed where the photo is smooth: in each window a linear function of its colours."""
    colours, flat = photo.float() / 255, values[None]
    mean, mean_values = _window(colours), _window(flat)
    products = _window((colours[:, None] * colours[None]).flatten(0, 1)).unflatten(0, (3, 3))
    spread = products - mean[:, None] * mean[None] + FLAT * torch.eye(3)[..., None, None]
    together = _window(colours * flat) - mean * mean_values
    slope = torch.linalg.solve(spread.permute(2, 3, 0, 1), together.permute(1, 2, 0)).permute(2, 0, 1)
    offset = mean_values - (slope * mean).sum(0, keepdim=True)
    return ((_window(slope) * colours).sum(0) + _window(offset)[0]).clamp(0, 1)


def _window(values: torch.Tensor) -> torch.Tensor:
    """The mean over the window around each place of `[C, h, w]`."""
    padded = F.pad(values[None], (REACH,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * REACH + 1, 1)[0]
