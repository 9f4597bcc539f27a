"""Photos and class images as tensors: cropped without squashing, encoded once by the autoencoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dbcli.diffusion.buckets import Box, Size, crop_box
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
# Larger ones one by one: four of 1024 px take 11 GB in float32, more than the weights of the model that they are for.
LARGE_PX = 768 * 768


@dataclass(frozen=True)
class Posterior:
    """What the autoencoder says of N images: mean and standard deviation, float32 `[N, C, h, w]`, scaled."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def shape_of(self, index: int) -> torch.Size:
        """`[C, h, w]` of an image's latent."""
        return self.mean.shape[1:]

    def draw(self, indices: Sequence[int], noise: torch.Tensor) -> torch.Tensor:
        """Latents `[len(indices), C, h, w]`: mean + deviation x noise."""
        rows = torch.as_tensor(list(indices))
        return self.mean[rows] + self.deviation[rows] * noise


@dataclass(frozen=True)
class Mixed:
    """Images of several sizes: image i is the `places[i][1]`th of `parts[places[i][0]]`."""

    parts: Sequence[Posterior]
    places: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.places)

    def shape_of(self, index: int) -> torch.Size:
        """`[C, h, w]` of an image's latent."""
        return self.parts[self.places[index][0]].mean.shape[1:]

    def draw(self, indices: Sequence[int], noise: torch.Tensor) -> torch.Tensor:
        """As that of `Posterior`, for images that are all of one size."""
        (part,) = {self.places[index][0] for index in indices}
        return self.parts[part].draw([self.places[index][1] for index in indices], noise)


Latents = Posterior | Mixed


def crop_boxes(
    crop: str, width: int, height: int, *, seed: int, number: int, mask: Path | None = None, aspect: float = 1.0
) -> list[Box]:
    """The parts of photo `number` that training sees: its centre, random ones, or the one around the subject.

    Each is `aspect` times as wide as it is high, and as large as the photo has room for or the subject needs. Without
    a mask `subject` is the centre. Raises PhotoError for a mask that cannot be read or shows no subject.
    """
    if crop == "random":
        generators = [generator_for(seed, "crop", number, view) for view in range(RANDOM_CROPS)]
        return [crop_box(width, height, *torch.rand(2, generator=one).tolist(), aspect=aspect) for one in generators]
    if crop == "subject" and mask is not None:
        return [_around(_subject_box(mask_in_photo(mask, (width, height))), width, height, aspect)]
    return [crop_box(width, height, aspect=aspect)]


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


def _around(subject: Box, width: int, height: int, aspect: float) -> Box:
    """What is around a box, moved where it would reach out of the image, and no larger than it."""
    left, top, right, bottom = subject
    down_px = min(max((right - left) / aspect, bottom - top) / SUBJECT_SHARE, width / aspect, height)
    across_px = down_px * aspect
    x, y = (
        min(max((low + high - side) / 2, 0.0), length - side)
        for low, high, side, length in ((left, right, across_px, width), (top, bottom, down_px, height))
    )
    return x, y, x + across_px, y + down_px


def to_tensor(image: Image.Image, size: Size, box: Box | None = None) -> torch.Tensor:
    """A part of an image, or its centre, at a size in px, as float32 `[3, height, width]` in [-1, 1].

    Not squashed where the part has the size's proportions.
    """
    rgb = image.convert("RGB")
    part = box or crop_box(rgb.width, rgb.height, aspect=size[0] / size[1])
    return to_uint8(rgb.resize(size, Image.Resampling.LANCZOS, box=part)).float() / 127.5 - 1


def to_uint8(image: Image.Image) -> torch.Tensor:
    """An 8-bit RGB image as it is, uint8 `[3, H, W]`."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def to_image(tensor: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in [-1, 1] (values outside are clipped) as an 8-bit RGB image."""
    pixels = ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def photo_variants(path: Path, size: Size, boxes: Sequence[Box] = (), *, flip: bool = False) -> list[torch.Tensor]:
    """Parts of one photo, else its centre, and their mirror images, `[3, height, width]` in [-1, 1] each.

    Raises PhotoError naming a file that is no sound PNG, which is what a project keeps its images as.
    """
    with _opened(path) as image:
        views = [to_tensor(image, size, box) for box in boxes] or [to_tensor(image, size)]
    return with_mirrored(views, flip)


def mask_variants(
    path: Path, photo_size: Size, latent_size: Size, boxes: Sequence[Box], *, flip: bool = False
) -> list[torch.Tensor]:
    """The mask of every view that `photo_variants` gives of the same boxes, cropped and mirrored as it is.

    Each is float32 `[1, h, w]` in [0, 1], 1 where the subject is, as wide and high as a latent.
    Raises PhotoError for a file that is no sound PNG, does not have its photo's proportions, or shows no subject.
    """
    grey = mask_in_photo(path, photo_size)
    return with_mirrored([_mask_tensor(grey, latent_size, box) for box in boxes], flip)


def mask_in_photo(path: Path, photo_size: Size) -> Image.Image:
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


def _mask_tensor(grey: Image.Image, latent_size: Size, box: Box) -> torch.Tensor:
    # The mean over the pixels beneath each latent: a latent at the edge counts as much as it shows of the subject.
    small = grey.resize(latent_size, Image.Resampling.BOX, box=box)
    return torch.from_numpy(np.asarray(small).copy()).unsqueeze(0).float() / 255


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path, formats=("PNG",))
        image.load()
    except Exception as error:  # decoders raise whatever they like on broken files
        raise PhotoError(f"{path} cannot be read as a PNG.") from error
    return image


def encoded_at_once(width: int, height: int) -> int:
    """How many images of a size in px the autoencoder encodes together."""
    return ENCODE_BATCH if width * height <= LARGE_PX else 1


@torch.no_grad()
def encode(
    vae: Any,
    pixels: Sequence[torch.Tensor],
    *,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Posterior:
    """The autoencoder's posterior of images `[3, H, W]` in [-1, 1] of one size, scaled as the denoiser expects it."""
    scale, shift = vae.config.scaling_factor, _shift(vae)
    batch_size = batch_size or encoded_at_once(pixels[0].shape[-1], pixels[0].shape[-2])
    means, deviations = [], []
    for start in range(0, len(pixels), batch_size):
        batch = torch.stack(list(pixels[start : start + batch_size])).to(vae.device, vae.dtype)
        latent = vae.encode(batch).latent_dist
        means.append((latent.mean.float().cpu() - shift) * scale)
        deviations.append(latent.std.float().cpu() * scale)
        if on_batch is not None:
            on_batch(len(batch))
    return Posterior(torch.cat(means), torch.cat(deviations))


def encode_sizes(vae: Any, pixels: Sequence[torch.Tensor], *, on_batch: Callable[[int], None] | None = None) -> Latents:
    """The posterior of images of any sizes, those of one size together."""
    by_size: dict[torch.Size, list[int]] = {}
    for index, one in enumerate(pixels):
        by_size.setdefault(one.shape, []).append(index)
    parts = [encode(vae, [pixels[index] for index in own], on_batch=on_batch) for own in by_size.values()]
    if len(parts) == 1:
        return parts[0]
    places = {index: (part, row) for part, own in enumerate(by_size.values()) for row, index in enumerate(own)}
    return Mixed(parts, [places[index] for index in range(len(pixels))])


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents `[B, C, h, w]` as images `[B, 3, H, W]` in about [-1, 1]."""
    images: torch.Tensor = vae.decode((latents / vae.config.scaling_factor + _shift(vae)).to(vae.dtype)).sample
    return images


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0
