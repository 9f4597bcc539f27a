"""Subjects before a plain ground: what differs from the colours along the photo's frame.

There what photos have in common is the ground as well, white or gray, and a draft of a mask may be of that.
"""

from __future__ import annotations

import torch

# The frame is this share of a photo at its top and sides; the subject often reaches the bottom.
FRAME = 0.06
# Colours that a frame of a plain ground has at most, each as often as any other (exponential of the entropy over bins
# of 32 levels): 1.0 to 3.2 for studio grounds and painted walls, 3.6 to 6 for asphalt, more for all else.
MOST_COLOURS = 3.5
# In the dark all colours are alike: a frame darker than this, of 255, says nothing.
LEAST_LIGHT = 40.0
# A colour of the frame, in bins of 16 levels, that is seldomer is the subject's, reaching in.
RAREST = 0.01
# Distance in levels, 0 to 255, to the nearest colour of the frame, at which a place begins to stand out, and does.
NEAR, FAR = 10.0, 30.0
# The share of a photo that has to stand out.
LEAST = 0.005


def foreground(photo: torch.Tensor) -> torch.Tensor | None:
    """How much each place of a photo, uint8 `[3, h, w]`, differs from its plain ground, `[h, w]` in [0, 1].

    None where the ground is not plain or dark, or nothing stands out from it.
    """
    frame = photo[:, _frame(photo)].T
    if _colours(frame // 32) > MOST_COLOURS or float(frame.float().mean()) < LEAST_LIGHT:
        return None
    _, bins, counts = (frame // 16).unique(dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), 3).index_add_(0, bins, frame.float())
    ground = (sums / counts[:, None])[counts >= RAREST * len(frame)]
    distance = torch.cdist(photo.flatten(1).T.float(), ground).amin(1).view(photo.shape[1:])
    found = ((distance - NEAR) / (FAR - NEAR)).clamp(0, 1)
    return found if float(found.mean()) >= LEAST else None


def _frame(photo: torch.Tensor) -> torch.Tensor:
    height, width = photo.shape[1:]
    across, down = max(1, round(FRAME * width)), max(1, round(FRAME * height))
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[down:, across : width - across] = True
    return ~inside


def _colours(bins: torch.Tensor) -> float:
    """How many colours `[N, 3]` are, were each as often as any other."""
    _, counts = bins.unique(dim=0, return_counts=True)
    shares = counts / counts.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))
