"""How well a judge tells subjects apart: nearest-photo accuracy on folders of photos, beside colour histograms."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, ViTModel


def load_photos(folder: Path, size_px: int) -> tuple[list[Image.Image], list[str]]:
    """Return centre-cropped photos scaled to `size_px`, and their subjects (the names of their folders)."""
    images, subjects = [], []
    for path in sorted(path for path in folder.glob("*/*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"}):
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            images.append(square.resize((size_px, size_px), Image.Resampling.BICUBIC))
        subjects.append(path.parent.name)
    return images, subjects


def histogram_features(images: list[Image.Image], bins: int = 6) -> Tensor:
    """Return square-rooted colour histograms [N, bins^3], whose cosine is the Bhattacharyya coefficient."""
    features = []
    for image in images:
        pixels = np.asarray(image).reshape(-1, 3)
        counts, _ = np.histogramdd(pixels, bins=bins, range=[(0, 256)] * 3)
        features.append(np.sqrt(counts.ravel() / len(pixels)))
    return torch.tensor(np.stack(features), dtype=torch.float32)


@torch.no_grad()
def judge_features(folder: Path, images: list[Image.Image]) -> Tensor:
    """Return the features [N, D] of an embedded judge."""
    rule = json.loads((folder / "preprocess.json").read_text())
    size = (rule["size_px"], rule["size_px"])
    stacked = np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
    pixels = torch.from_numpy(stacked.astype(np.float32) / 255).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(rule[name])[None, :, None, None] for name in ("mean", "std"))
    pixels = (pixels - mean) / std
    if (folder / "text_projection.safetensors").exists():
        tower = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval()
        return tower(pixel_values=pixels).image_embeds
    tower = ViTModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    return tower(pixel_values=pixels).last_hidden_state[:, 0]


def nearest_accuracy(features: Tensor, subjects: list[str]) -> float:
    """Return the fraction of photos whose nearest other photo, by cosine, shows the same subject."""
    unit = F.normalize(features.float(), dim=-1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-2)
    nearest = similarity.argmax(1).tolist()
    return sum(subjects[index] == subject for index, subject in zip(nearest, subjects, strict=True)) / len(subjects)


def main() -> None:
    """Measure judges on folders of photos, one folder a subject."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("photos", type=Path)
    options.add_argument("--judge", type=Path, action="append", default=[])
    options.add_argument("--size-px", type=int, default=64)
    arguments = options.parse_args()
    images, subjects = load_photos(arguments.photos, arguments.size_px)
    chance = sum(subjects.count(name) * (subjects.count(name) - 1) for name in set(subjects))
    rows = {"chance": chance / len(subjects) / (len(subjects) - 1)}
    rows["colour histogram"] = nearest_accuracy(histogram_features(images), subjects)
    for judge in arguments.judge:
        rows[judge.name] = nearest_accuracy(judge_features(judge, images), subjects)
    print(f"{len(images)} photos of {len(set(subjects))} subjects at {arguments.size_px} px")
    for name, value in rows.items():
        print(f"{name:18} {value:.3f}")


if __name__ == "__main__":
    main()
