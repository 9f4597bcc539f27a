"""Whether a judge tells subjects apart: how often the nearest other photo shows the same subject.

    python benchmarks/retrieval.py path/to/dreambooth/dataset
    python benchmarks/retrieval.py PHOTOS --judge tiny-dino --judge tiny-dino=folder/of/another --size 64

Each photo is cropped to its square and shrunk to what a base draws, then encoded as the judge encodes every image.
`--through VAE` asks it of soft images too: each photo as an autoencoder gives it back, held against the other photos,
by the nearest of them and by the mean over a subject's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import write_figures  # noqa: E402

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
HISTOGRAM_BINS = 6
# Images -> unit features [N, D].
Encode = Callable[[Sequence[Image.Image]], torch.Tensor]


def photos_of(folder: Path) -> tuple[list[Image.Image], list[str]]:
    """Every photo of a folder that has a folder a subject, as an RGB square, and whose it is."""
    from dbcli.metrics.judges.features_cache import open_image

    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise SystemExit(f"{folder} holds no folders of photos.")
    return [square(open_image(path)) for path in files], [path.parent.name for path in files]


def square(image: Image.Image) -> Image.Image:
    """The largest centred square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def shrunk(images: Sequence[Image.Image], size_px: int) -> list[Image.Image]:
    """The squares at the base's resolution."""
    return [image.resize((size_px, size_px), Image.Resampling.BICUBIC) for image in images]


def nearest_right(features: torch.Tensor, subjects: Sequence[str]) -> list[bool]:
    """For each row of unit features [N, D] whether its nearest other row, by cosine, is of the same subject."""
    cosines = features.double() @ features.double().T
    nearest = cosines.fill_diagonal_(-2.0).argmax(dim=1).tolist()
    return [subjects[other] == subject for other, subject in zip(nearest, subjects, strict=True)]


def subject_right(soft: torch.Tensor, features: torch.Tensor, subjects: Sequence[str]) -> tuple[float, float]:
    """How often row i of `soft` [N, D], an image of photo i, is taken for its subject, photo i itself left out.

    By the nearest other photo, and by the highest mean cosine with a subject's other photos.
    """
    cosines = soft.double() @ features.double().T
    cosines.fill_diagonal_(float("nan"))
    names = list(dict.fromkeys(subjects))
    rows = [[row for row, name in enumerate(subjects) if name == one] for one in names]
    means = torch.stack([cosines[:, own].nanmean(dim=1) for own in rows], dim=1).nan_to_num(-2.0)
    nearest = [subjects[column] for column in cosines.nan_to_num(-2.0).argmax(dim=1).tolist()]
    likest = [names[column] for column in means.argmax(dim=1).tolist()]
    shares = (sum(one == two for one, two in zip(found, subjects, strict=True)) for found in (nearest, likest))
    by_nearest, by_mean = (count / len(subjects) for count in shares)
    return by_nearest, by_mean


def through(folder: Path, images: Sequence[Image.Image]) -> list[Image.Image]:
    """The images as an autoencoder of diffusers' form gives them back, one by one."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    given_back = []
    with torch.inference_mode():
        for image in images:
            pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
            decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0]
            whole = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            given_back.append(Image.fromarray(whole))
    return given_back


def chance(subjects: Sequence[str]) -> float:
    """How often another photo, taken blindly, shows the same subject."""
    same = sum(subjects.count(subject) - 1 for subject in subjects)
    return same / len(subjects) / (len(subjects) - 1)


def colour_histograms(images: Sequence[Image.Image]) -> torch.Tensor:
    """Unit features [N, bins^3] of colours alone: what a judge has to beat."""
    rows = []
    for image in images:
        pixels = np.asarray(image).reshape(-1, 3)
        counts, _ = np.histogramdd(pixels, bins=HISTOGRAM_BINS, range=[(0, 256)] * 3)
        rows.append(np.sqrt(counts.ravel() / len(pixels)))
    return torch.tensor(np.stack(rows), dtype=torch.float32)


def encoder_of(name: str) -> Encode:
    """A judge by its kind, or KIND=SOURCE for a folder, file or hub id of that kind."""
    from dbcli.metrics.judges.loading import load_judge

    kind, _, source = name.partition("=")
    return load_judge(kind, source or None).encode_images


def measure(
    images: Sequence[Image.Image],
    subjects: Sequence[str],
    encoders: dict[str, Encode],
    sizes: Sequence[int],
    vae: Path | None = None,
) -> list[dict[str, Any]]:
    """A row for each judge and size: the share that is right, and of which subjects fewer than half are."""
    rows = []
    for size in sizes:
        small = shrunk(images, size)
        soft = None if vae is None else through(vae, small)
        for name, encode in encoders.items():
            features = encode(small)
            right = nearest_right(features, subjects)
            weak = [one for one in dict.fromkeys(subjects) if _share_of(one, right, subjects) < 0.5]
            row = {"judge": name, "size_px": size, "right": sum(right) / len(right), "weak": weak}
            if soft is not None:
                row["soft_by_nearest"], row["soft_by_mean"] = subject_right(encode(soft), features, subjects)
            rows.append(row)
    return rows


def _share_of(subject: str, right: Sequence[bool], subjects: Sequence[str]) -> float:
    flags = [flag for flag, name in zip(right, subjects, strict=True) if name == subject]
    return sum(flags) / len(flags)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    figures = {"right": "nearest other photo right", "soft_by_nearest": "soft, by the nearest"}
    figures["soft_by_mean"] = "by the mean"
    known = [key for key in figures if key in rows[0]]
    heads = ["judge", "photos at", *(figures[key] for key in known), "subjects mostly missed"]
    lines = [f"| {' | '.join(heads)} |", "|:--|--:|" + "--:|" * len(known) + ":--|"]
    for row in rows:
        shares = " | ".join(f"{row[key]:.1%}" for key in known)
        lines.append(f"| {row['judge']} | {row['size_px']} px | {shares} | {', '.join(row['weak'])} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path, help="a folder with a folder of photos a subject")
    parser.add_argument("--judge", action="append", help="tiny-dino, tiny-clip, dino, clip or KIND=SOURCE; repeat")
    parser.add_argument("--size", type=int, action="append", help="pixels a side; 64 and 128 if left out")
    parser.add_argument("--through", type=Path, metavar="VAE", help="a folder with an autoencoder of diffusers' form")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    images, subjects = photos_of(options.photos)
    encoders: dict[str, Encode] = {"colours alone": colour_histograms}
    encoders |= {name: encoder_of(name) for name in options.judge or ("tiny-dino", "tiny-clip")}
    rows = measure(images, subjects, encoders, options.size or (64, 128), options.through)
    blind = chance(subjects)
    print(f"{len(images)} photos of {len(set(subjects))} subjects, by chance {blind:.1%}\n\n{markdown(rows)}", end="")
    write_figures(options.json, photos=len(images), subjects=len(set(subjects)), chance=blind, rows=rows)


if __name__ == "__main__":
    main()
