"""Photos and class images as tensors: cropped without squashing, encoded once by the autoencoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dbcli.diffusion.noise import generator_for
from dbcli.errors import PhotoError

# A random crop is drawn this often for every photo before training, so that latents can still be computed once.
RANDOM_CROPS = 8
# Images that the autoencoder encodes together.
ENCODE_BATCH = 4


@dataclass(frozen=True)
class Posterior:
    """What the autoencoder says of N images: mean and standard deviation, float32 `[N, C, h, w]`, scaled."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, indices: Sequence[int], noise: torch.Tensor) -> torch.Tensor:
        """Latents `[len(indices), C, h, w]`: mean + deviation x noise."""
        rows = torch.as_tensor(list(indices))
        return self.mean[rows] + self.deviation[rows] * noise


def crop_box(width: int, height: int, across: float = 0.5, down: float = 0.5) -> tuple[float, float, float, float]:
    """The largest square of an image as (left, top, right, bottom) in px; 0.5, 0.5 is its centre."""
    side = min(width, height)
    left, top = (width - side) * across, (height - side) * down
    return left, top, left + side, top + side


def to_tensor(image: Image.Image, resolution: int, across: float = 0.5, down: float = 0.5) -> torch.Tensor:
    """An image as float32 `[3, resolution, resolution]` in [-1, 1], cropped to a square, never squashed."""
    rgb = image.convert("RGB")
    box = crop_box(rgb.width, rgb.height, across, down)
    small = rgb.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float() / 127.5 - 1


def to_image(tensor: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in [-1, 1] (values outside are clipped) as an 8-bit RGB image."""
    pixels = ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def photo_variants(path: Path, resolution: int, *, crop: str, flip: bool, seed: int, number: int) -> list[torch.Tensor]:
    """Every view of one photo that training may see, each float32 `[3, resolution, resolution]` in [-1, 1].

    Raises PhotoError naming a file that is no sound PNG, which is what a project keeps its images as.
    """
    with _opened(path) as image:
        views = [to_tensor(image, resolution, *place) for place in _crop_places(crop, seed, number)]
    return _with_mirrored(views, flip)


def mask_variants(
    path: Path, photo_size: tuple[int, int], latent_size: int, *, crop: str, flip: bool, seed: int, number: int
) -> list[torch.Tensor]:
    """The mask of every view that `photo_variants` gives with the same arguments, cropped and mirrored as it is.

    Each is float32 `[1, latent_size, latent_size]` in [0, 1], 1 where the subject is. photo_size is width and height.
    Raises PhotoError for a file that is no sound PNG, does not have its photo's proportions, or shows no subject.
    """
    with _opened(path) as image:
        # A person may have painted it at another size, but not over another crop of the photo.
        if abs(image.width * photo_size[1] - image.height * photo_size[0]) > max(*photo_size, *image.size):
            raise PhotoError(
                f"{path} is {image.width} x {image.height} px; its photo is {photo_size[0]} x {photo_size[1]}.",
                hint="a mask covers its whole photo: white where the subject is, black elsewhere",
            )
        grey = grey_mask(image).resize(photo_size, Image.Resampling.BILINEAR)
    if grey.getextrema()[1] == 0:
        raise PhotoError(f"{path} is black everywhere: it shows no subject.", hint="paint it white, or delete it")
    views = [_mask_tensor(grey, latent_size, *place) for place in _crop_places(crop, seed, number)]
    return _with_mirrored(views, flip)


def _with_mirrored(views: list[torch.Tensor], flip: bool) -> list[torch.Tensor]:
    return views + [view.flip(-1) for view in views] if flip else views


def grey_mask(image: Image.Image) -> Image.Image:
    """A mask in 0 to 255, whatever it was painted in: mode L, or F where it holds more than 8 bits a pixel.

    Sixteen bits (modes I;16 and I) are 65,535 for white; floating-point values are 1 for white.
    """
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which makes nearly every grey white.
        return Image.fromarray(np.asarray(image).astype(np.float32).clip(0, 65_535) / 257)
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 1) * np.float32(255))
    return image.convert("L")


def _mask_tensor(grey: Image.Image, latent_size: int, across: float, down: float) -> torch.Tensor:
    box = crop_box(grey.width, grey.height, across, down)
    # The mean over the pixels beneath each latent: a latent at the edge counts as much as it shows of the subject.
    small = grey.resize((latent_size, latent_size), Image.Resampling.BOX, box=box)
    return torch.from_numpy(np.asarray(small).copy()).unsqueeze(0).float() / 255


def _crop_places(crop: str, seed: int, number: int) -> list[list[float]]:
    """Where the crops of one photo lie, (across, down) in [0, 1] each."""
    if crop != "random":
        return [[0.5, 0.5]]
    return [torch.rand(2, generator=generator_for(seed, "crop", number, view)).tolist() for view in range(RANDOM_CROPS)]


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path, formats=("PNG",))
        image.load()
    except Exception as error:  # decoders raise whatever they like on broken files
        raise PhotoError(f"{path} cannot be read as a PNG.") from error
    return image


@torch.no_grad()
def encode(
    vae: Any,
    pixels: Sequence[torch.Tensor],
    *,
    batch_size: int = ENCODE_BATCH,
    on_batch: Callable[[int], None] | None = None,
) -> Posterior:
    """The autoencoder's posterior of images `[3, H, W]` in [-1, 1], scaled as the denoiser expects it."""
    scale, shift = vae.config.scaling_factor, _shift(vae)
    means, deviations = [], []
    for start in range(0, len(pixels), batch_size):
        batch = torch.stack(list(pixels[start : start + batch_size])).to(vae.device, vae.dtype)
        latent = vae.encode(batch).latent_dist
        means.append((latent.mean.float().cpu() - shift) * scale)
        deviations.append(latent.std.float().cpu() * scale)
        if on_batch is not None:
            on_batch(len(batch))
    return Posterior(torch.cat(means), torch.cat(deviations))


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents `[B, C, h, w]` as images `[B, 3, H, W]` in about [-1, 1]."""
    images: torch.Tensor = vae.decode((latents / vae.config.scaling_factor + _shift(vae)).to(vae.dtype)).sample
    return images


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0
