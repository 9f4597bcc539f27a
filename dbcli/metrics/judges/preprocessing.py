"""From images to an encoder's input: resize, centre crop, normalise, the same way for every judge."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to `resize_px` (bicubic, antialiased by Pillow), centre crop to `crop_px`, then (x - mean) / std.

    With `read_px` the crop is enlarged to that size before it is read: a sharp photo then shows no more than what a
    small base draws, and the network still sees things at the size it was trained on.
    """

    resize_px: int
    crop_px: int
    mean: Channels
    std: Channels
    read_px: int | None = None

    def describe(self) -> dict[str, Any]:
        """The steps as JSON values, for the record beside a score."""
        steps = {
            "resize_shorter_side_px": self.resize_px,
            "interpolation": "bicubic, antialiased (Pillow)",
            "crop": f"centre {self.crop_px} px",
            "mean": list(self.mean),
            "std": list(self.std),
        }
        return steps if self.read_px is None else steps | {"read_px": self.read_px}

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Images of any size and mode as float32 [N, 3, S, S], where S is read_px, else crop_px."""
        return _normalised([self._cropped(image) for image in images], self)

    def _cropped(self, image: Image.Image) -> Image.Image:
        image = as_rgb(image)
        width, height = image.size
        shorter = min(width, height)
        # The longer side is rounded down and the crop's corner rounded, as torchvision does: published
        # numbers were made so.
        size = (self.resize_px * width // shorter, self.resize_px * height // shorter)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = round((size[0] - self.crop_px) / 2), round((size[1] - self.crop_px) / 2)
        cropped = image.crop((left, top, left + self.crop_px, top + self.crop_px))
        if self.read_px is None:
            return cropped
        return cropped.resize((self.read_px, self.read_px), Image.Resampling.BICUBIC)


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; transparency is laid on white."""
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Squashing:
    """Whole images squashed to a square of `size_px`, so that no part is cropped, then (x - mean) / std."""

    size_px: int
    mean: Channels
    std: Channels
    resample: int = Image.Resampling.BICUBIC

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Images of any size and mode as float32 [N, 3, size_px, size_px]."""
        side, how = (self.size_px, self.size_px), Image.Resampling(self.resample)
        return _normalised([as_rgb(image).resize(side, how) for image in images], self)


def read_squashing(folder: Path | None, otherwise: Squashing) -> Squashing:
    """What a model saved by transformers is fed, by its processor's description; `otherwise` for what that leaves out.

    A model may be fed at another size than its weights were first trained at: CLIPSeg's vision tower says 224 px, its
    processor 352. Raises ValueError for a size that is not square.
    """
    found = _processor(folder)
    size = found.get("size", otherwise.size_px)
    if isinstance(size, dict):
        sides = {size.get(key) for key in ("height", "width", "shortest_edge")} - {None}
        if len(sides) != 1:
            raise ValueError(f"its processor's size {size} is not square")
        size = sides.pop()
    if isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 4096:
        raise ValueError(f"its processor's size is {size!r}")
    mean, std = _channels(found.get("image_mean") or otherwise.mean), _channels(found.get("image_std") or otherwise.std)
    resample = Image.Resampling(found.get("resample", otherwise.resample))
    return Squashing(size, mean, std, resample)


def _processor(folder: Path | None) -> dict[str, Any]:
    """The image processor as transformers writes it: a file of its own, or since version 5 a part of another."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = (folder or Path()) / name
        if folder is not None and path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            found = found.get("image_processor", found)
            return found if isinstance(found, dict) else {}
    return {}


def _normalised(images: Sequence[Image.Image], how: Preprocessing | Squashing) -> torch.Tensor:
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (how.mean, how.std))
    return (scaled - mean) / std


def read_preprocessing(path: Path) -> Preprocessing:
    """An embedded judge's preprocess.json: size_px, mean and std, and perhaps read_px.

    Raises ValueError or KeyError for a file that lacks them; the caller names the judge.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    size, (mean, std) = int(found["size_px"]), (_channels(found[key]) for key in ("mean", "std"))
    return Preprocessing(size, size, mean, std, int(found["read_px"]) if "read_px" in found else None)


def _channels(values: Sequence[float]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
