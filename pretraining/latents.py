"""What the latents are to be: fixed beforehand, because a small autoencoder trained jointly loses colour first.

The first eight of the 24 channels are those of the first edition: its own encoder's, on the picture shrunk to 64 px (or
those of an encoder of 128 px that learnt them), so that a UNet that knows them can be gone on
with; or, for a base made from nothing, a block PCA of 4 x 4 pixels of the same. The others are the strongest
components, in blocks of 8 x 8 pixels, of what the first leave unsaid.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from pretraining.settings import FIRST_CHANNELS, LATENT_CHANNELS, LATENT_PX, PICTURE_PX

BLOCK_PX = PICTURE_PX // LATENT_PX
FIRST_BLOCK_PX = BLOCK_PX // 2
# Of the strongest eight components that the first edition did not have: they are worth less than those that it had.
REST_VARIANCE = 0.5


def blocks_of(pixels: Tensor, block_px: int) -> Tensor:
    """Return the square blocks [N * h * w, 3 * block^2] of pixels [N, 3, H, W]."""
    return F.pixel_unshuffle(pixels, block_px).permute(0, 2, 3, 1).reshape(-1, 3 * block_px**2)


def as_rows(maps: Tensor) -> Tensor:
    """Return the vectors [N * h * w, C] of maps [N, C, h, w]."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def principal(rows: Tensor, count: int, variance: float, strongest: int) -> Tensor:
    """Return the projection [count, D] of rows [N, D] of mean zero on their first components, partly whitened.

    Each component is divided by the square root of its standard deviation: full whitening would make the UNet spend
    as much on the faintest component as on the strongest. The `strongest` ones together have the given variance.
    """
    vectors, values, _ = torch.linalg.svd(torch.cov(rows.T))
    spread = values[:count].sqrt()
    return (vectors[:, :count] / spread.sqrt()).T * (variance / spread[:strongest].mean()).sqrt()


class Targets(nn.Module):
    """The latents [N, 24, H/8, W/8] that an encoder is to give for pixels [N, 3, H, W] in [-1, 1]."""

    def __init__(self, first_edition: Path | None = None) -> None:
        super().__init__()
        self.first_edition = None
        if first_edition is not None:
            teacher = AutoencoderKL.from_pretrained(first_edition, torch_dtype=torch.float32)
            self.first_edition = teacher.eval().requires_grad_(False)
        first_width, width = 3 * FIRST_BLOCK_PX**2, 3 * BLOCK_PX**2
        self.register_buffer("first_mean", torch.zeros(first_width))
        self.register_buffer("first", torch.zeros(FIRST_CHANNELS, first_width))
        self.register_buffer("known", torch.zeros(FIRST_CHANNELS + 1, width))
        self.register_buffer("rest", torch.zeros(LATENT_CHANNELS - FIRST_CHANNELS, width))

    def first_channels(self, pixels: Tensor) -> Tensor:
        """Return the first eight channels for pixels [N, 3, H, W]."""
        if self.first_edition is not None:
            is_smaller = self.first_edition.config.sample_size < PICTURE_PX
            return self.first_edition.encode(F.avg_pool2d(pixels, 2) if is_smaller else pixels).latent_dist.mode()
        rows = blocks_of(F.avg_pool2d(pixels, 2), FIRST_BLOCK_PX) - self.first_mean
        shape = (len(pixels), pixels.shape[2] // BLOCK_PX, pixels.shape[3] // BLOCK_PX, FIRST_CHANNELS)
        return (rows @ self.first.T).reshape(shape).permute(0, 3, 1, 2)

    def unsaid(self, pixels: Tensor, first: Tensor) -> Tensor:
        """Return, in blocks [N * h * w, 192], what a linear reading of the first channels does not tell of pixels."""
        rows = as_rows(first)
        return blocks_of(pixels, BLOCK_PX) - torch.cat([rows, torch.ones_like(rows[:, :1])], 1) @ self.known

    @torch.no_grad()
    def fit(self, pixels: Tensor) -> None:
        """Find the components from a sample of pixels [N, 3, H, W]."""
        if self.first_edition is None:
            rows = blocks_of(F.avg_pool2d(pixels, 2), FIRST_BLOCK_PX)
            self.first_mean.copy_(rows.mean(0))
            self.first.copy_(principal(rows - self.first_mean, FIRST_CHANNELS, 1.0, FIRST_CHANNELS))
        first = torch.cat([self.first_channels(part) for part in pixels.split(64)])
        rows = as_rows(first)
        said = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        self.known.copy_(torch.linalg.lstsq(said, blocks_of(pixels, BLOCK_PX)).solution)
        self.rest.copy_(principal(self.unsaid(pixels, first), len(self.rest), REST_VARIANCE, FIRST_CHANNELS))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return the latents of pixels."""
        first = self.first_channels(pixels)
        rest = self.unsaid(pixels, first) @ self.rest.T
        shape = (len(pixels), first.shape[2], first.shape[3], len(self.rest))
        return torch.cat([first, rest.reshape(shape).permute(0, 3, 1, 2)], 1)

    @torch.no_grad()
    def linear_reading(self, pixels: Tensor, count: int) -> Tensor:
        """Return pixels [N, 3, H, W] as a linear reading of the first channels and `count` others gives them back.

        The others are as many components as asked for, of these very pixels: what so many channels can be worth.
        """
        unsaid = self.unsaid(pixels, torch.cat([self.first_channels(part) for part in pixels.split(64)]))
        vectors = torch.linalg.svd(torch.cov(unsaid.T))[0][:, :count]
        blocks = blocks_of(pixels, BLOCK_PX) - unsaid + unsaid @ vectors @ vectors.T
        side = (len(pixels), pixels.shape[2] // BLOCK_PX, pixels.shape[3] // BLOCK_PX, -1)
        return F.pixel_shuffle(blocks.reshape(side).permute(0, 3, 1, 2), BLOCK_PX)

    def components(self) -> dict[str, Tensor]:
        """Return what `fit` found, to be saved."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("first_edition.")}
