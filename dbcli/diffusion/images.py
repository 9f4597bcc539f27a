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
# The share of a square's side that the subject takes. One square a photo: several squares of different size and place
# left a small base with the subject's colours, where one taught its face in the same steps.
SUBJECT_SHARE = 0.76
# Where masks are looked at to find the subject's box: their side, the least value that counts, the share cut each side.
BOX_PX, BOX_LEAST, BOX_CUT = 64, 0.45, 0.03
# Images that the autoencoder encodes together.
ENCODE_BATCH = 4


# The corners of a square of an image, in px: left, top, right, bottom.
Box = tuple[float, float, float, float]


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


def crop_box(width: int, height: int, across: float = 0.5, down: float = 0.5) -> Box:
    """The largest square of an image; 0.5, 0.5 is its centre."""
    side = min(width, height)
    left, top = (width - side) * across, (height - side) * down
    return left, top, left + side, top + side


def crop_boxes(crop: str, width: int, height: int, *, seed: int, number: int, mask: Path | None = None) -> list[Box]:
    """The squares of photo `number` that training sees: its centre, random ones, or the one around the subject.

    Without a mask `subject` is the centre. Raises PhotoError for a mask that cannot be read or shows no subject.
    """
    if crop == "random":
        generators = [generator_for(seed, "crop", number, view) for view in range(RANDOM_CROPS)]
        return [crop_box(width, height, *torch.rand(2, generator=one).tolist()) for one in generators]
    if crop == "subject" and mask is not None:
        return [_around(_subject_box(mask_in_photo(mask, (width, height))), width, height)]
    return [crop_box(width, height)]


def _subject_box(grey: Image.Image) -> Box:
    """Where a mask is white, less the outermost 3 % of it on each side, which are its slips."""
    small = np.asarray(grey.resize((BOX_PX, BOX_PX), Image.Resampling.BOX), dtype=np.float64) / 255
    weight = np.where(small >= min(BOX_LEAST, small.max()), small, 0) ** 2
    edges: list[float] = []
    for axis, length in ((0, grey.width), (1, grey.height)):
        reached = weight.sum(axis).cumsum() / weight.sum()
        first, last = np.searchsorted(reached, BOX_CUT), np.searchsorted(reached, 1 - BOX_CUT)
        edges += [float(first) * length / BOX_PX, float(last + 1) * length / BOX_PX]
    left, right, top, bottom = edges
    return left, top, right, bottom


def _around(subject: Box, width: int, height: int) -> Box:
    """The square around a box, moved where it would reach out of the image, and no larger than it."""
    left, top, right, bottom = subject
    side = min(max(right - left, bottom - top) / SUBJECT_SHARE, width, height)
    x, y = (
        min(max((low + high - side) / 2, 0.0), length - side)
        for low, high, length in ((left, right, width), (top, bottom, height))
    )
    return x, y, x + side, y + side


def to_tensor(image: Image.Image, resolution: int, box: Box | None = None) -> torch.Tensor:
    """A square of an image, or its centre, as float32 `[3, resolution, resolution]` in [-1, 1], never squashed."""
    rgb = image.convert("RGB")
    square = box or crop_box(rgb.width, rgb.height)
    small = rgb.resize((resolution, resolution), Image.Resampling.LANCZOS, box=square)
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float() / 127.5 - 1


def to_image(tensor: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in [-1, 1] (values outside are clipped) as an 8-bit RGB image."""
    pixels = ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def photo_variants(path: Path, resolution: int, boxes: Sequence[Box] = (), *, flip: bool = False) -> list[torch.Tensor]:
    """Squares of one photo, else its centre, and their mirror images, `[3, resolution, resolution]` in [-1, 1] each.

    Raises PhotoError naming a file that is no sound PNG, which is what a project keeps its images as.
    """
    with _opened(path) as image:
        views = [to_tensor(image, resolution, box) for box in boxes or [crop_box(*image.size)]]
    return with_mirrored(views, flip)


def mask_variants(
    path: Path, photo_size: tuple[int, int], latent_size: int, boxes: Sequence[Box], *, flip: bool = False
) -> list[torch.Tensor]:
    """The mask of every view that `photo_variants` gives of the same boxes, cropped and mirrored as it is.

    Each is float32 `[1, latent_size, latent_size]` in [0, 1], 1 where the subject is. photo_size is width and height.
    Raises PhotoError for a file that is no sound PNG, does not have its photo's proportions, or shows no subject.
    """
    grey = mask_in_photo(path, photo_size)
    return with_mirrored([_mask_tensor(grey, latent_size, box) for box in boxes], flip)


def mask_in_photo(path: Path, photo_size: tuple[int, int]) -> Image.Image:
    """A mask at its photo's size, 0 to 255; raises PhotoError as `mask_variants` does."""
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
    return grey


def with_mirrored(views: list[torch.Tensor], flip: bool) -> list[torch.Tensor]:
    """Views, and behind them their mirror images where they are wanted."""
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


def _mask_tensor(grey: Image.Image, latent_size: int, box: Box) -> torch.Tensor:
    # The mean over the pixels beneath each latent: a latent at the edge counts as much as it shows of the subject.
    small = grey.resize((latent_size, latent_size), Image.Resampling.BOX, box=box)
    return torch.from_numpy(np.asarray(small).copy()).unsqueeze(0).float() / 255


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
