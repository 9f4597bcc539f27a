"""Measure an autoencoder: what it keeps of photographs and of the corpus, and how crisp its pictures are.

Photographs are those of a run that are never trained on, and any folder given. Each is compared at 128 px. An
autoencoder for smaller pictures sees them shrunk, and its own are enlarged (bicubic), as a person sees them.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from pretraining.autoencoder import HELD_OUT, psnr, reconstruct
from pretraining.clip import to_pixels
from pretraining.latents import Targets
from pretraining.photographs import Crops, centre_square, held_out_photographs
from pretraining.settings import FIRST_CHANNELS, PICTURE_PX, Run, parser, run_from

PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
SHOWN = 10


def gradient_energy(pixels: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels [N, 3, H, W] in [-1, 1]."""
    across, down = pixels.diff(dim=3).abs().mean(), pixels.diff(dim=2).abs().mean()
    return float((across + down) / 2)


def load_photos(folder: Path) -> Tensor:
    """Return all photos below a folder as centred squares float32 [N, 3, 128, 128] in [-1, 1]."""
    squares = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_ENDINGS):
        with Image.open(path) as image:
            squares.append(centre_square(image))
    return to_pixels(np.stack(squares))


def as_seen(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return pixels [N, 3, 128, 128] as an autoencoder of any size keeps them, at 128 px."""
    side = vae.config.sample_size
    if side == PICTURE_PX:
        return reconstruct(vae, pixels)
    small = reconstruct(vae, F.interpolate(pixels, size=(side, side), mode="area"))
    return F.interpolate(small, size=(PICTURE_PX, PICTURE_PX), mode="bicubic").clamp(-1, 1)


def sheet(rows: list[Tensor]) -> Image.Image:
    """Join rows of pictures [N, 3, H, W] in [-1, 1] into one image."""
    pixels = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    return Image.fromarray(((pixels.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy())


@torch.no_grad()
def decoding_seconds(vae: AutoencoderKL) -> float:
    """Return the computing time of decoding eight pictures, the best of three."""
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    side = vae.config.sample_size // scale
    latents = torch.randn(8, vae.config.latent_channels, side, side)
    times = []
    for _ in range(3):
        started = time.process_time()
        vae.decode(latents)
        times.append(time.process_time() - started)
    return min(times)


def figures_of(vae: AutoencoderKL, known: dict[str, Tensor]) -> dict[str, float]:
    """Return the figures of an autoencoder on named sets of pixels [N, 3, 128, 128]."""
    figures = {"weights_millions": sum(p.numel() for p in vae.parameters()) / 1e6}
    figures["eight_decoded_seconds"] = decoding_seconds(vae)
    for name, pixels in known.items():
        kept = as_seen(vae, pixels)
        figures[f"{name}_psnr"] = psnr(kept, pixels)
        figures[f"{name}_gradient"] = gradient_energy(kept)
        figures[f"{name}_gradient_of_original"] = gradient_energy(pixels)
    return figures


def worth_of_channels(run: Run, known: dict[str, Tensor], first_edition: Path | None) -> dict[str, dict[int, float]]:
    """Return, for sets of pixels, the signal-to-noise ratio of a linear reading of 8, 12, 16 and 24 channels."""
    targets = Targets(first_edition)
    targets.fit(Crops(run)(3000, PICTURE_PX // 2, torch.Generator().manual_seed(run.seed)))
    totals = (8, 12, 16, 24)
    return {
        name: {count: psnr(targets.linear_reading(pixels, count - FIRST_CHANNELS), pixels) for count in totals}
        for name, pixels in known.items()
    }


def measure(run: Run, folders: list[Path], photos: Path | None, out: Path) -> None:
    """Write figures.json and contact sheets of autoencoders, given by folder."""
    known = {
        "photographs": to_pixels(held_out_photographs(run)[0]),
        "corpus": to_pixels(np.load(run.path("pictures.npy"), mmap_mode="r")[:HELD_OUT]),
    }
    if photos is not None:
        known[photos.name] = load_photos(photos)
    vaes = {str(path): AutoencoderKL.from_pretrained(path, torch_dtype=torch.float32).eval() for path in folders}
    out.mkdir(parents=True, exist_ok=True)
    figures = {name: figures_of(vae, known) for name, vae in vaes.items()}
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    first = run.folder / "first_edition" / "vae"
    worth = worth_of_channels(run, known, first if first.exists() else None)
    (out / "channels.json").write_text(json.dumps(worth, indent=2) + "\n")
    print("linear reading of so many channels, dB:", json.dumps(worth))
    for name, pixels in known.items():
        some = pixels[:: max(1, len(pixels) // SHOWN)][:SHOWN]
        sheet([some, *(as_seen(vae, some) for vae in vaes.values())]).save(out / f"{name}.png")


def main() -> None:
    """Measure autoencoders on photographs that were never trained on."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("autoencoders", nargs="+", type=Path, help="diffusers folders, such as dbcli/embedded/sd/vae")
    options.add_argument("--photos", type=Path, help="a folder of photos that are not part of the run")
    options.add_argument("--out", type=Path, required=True, help="folder for figures.json and contact sheets")
    arguments = options.parse_args()
    measure(run_from(arguments), arguments.autoencoders, arguments.photos, arguments.out)


if __name__ == "__main__":
    main()
