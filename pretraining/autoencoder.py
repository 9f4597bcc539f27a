"""The autoencoder: AutoencoderKL of factor 4, taught to copy a closed-form block PCA and then to draw better.

Trained jointly, a small autoencoder loses colour first. So the latents are fixed beforehand: 4 x 4 pixel blocks,
projected on their first eight principal components and partly whitened. The encoder regresses them, the decoder
learns to turn them back into pixels, with a little noise on them, because the UNet's latents will not be perfect.
"""

import argparse
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from pretraining.clip import to_pixels
from pretraining.corpus import make_corpus
from pretraining.progress import Budget, falling_rate, load_checkpoint, save_checkpoint, set_rate
from pretraining.settings import LATENT_CHANNELS, PICTURE_PX, Run, parser, run_from

BLOCK_PX = 4
BATCH = 32
CROP_PX = 32
PEAK_RATE = 2e-3
HELD_OUT = 64


def autoencoder_folder(run: Run) -> Path:
    """Return the diffusers folder of the finished autoencoder."""
    return run.folder / "vae"


def block_projection(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection [8, 48] and mean [48] of 4 x 4 blocks of pixels [N, 3, H, W], partly whitened.

    Each component is divided by the square root of its standard deviation: full whitening would make the UNet spend
    as much on the faintest component as on the strongest. The whole has unit variance.
    """
    blocks = F.pixel_unshuffle(pixels, BLOCK_PX).permute(0, 2, 3, 1).reshape(-1, 3 * BLOCK_PX**2)
    mean = blocks.mean(0)
    vectors, values, _ = torch.linalg.svd(torch.cov((blocks - mean).T))
    spread = values[:LATENT_CHANNELS].sqrt()
    scale = 1 / spread.mean().sqrt()
    return (vectors[:, :LATENT_CHANNELS] / spread.sqrt()).T * scale, mean


def project(pixels: Tensor, projection: Tensor, mean: Tensor) -> Tensor:
    """Return the latents [N, 8, H/4, W/4] of pixels [N, 3, H, W] under a block projection."""
    blocks = F.pixel_unshuffle(pixels, BLOCK_PX) - mean[None, :, None, None]
    return torch.einsum("ck,nkhw->nchw", projection, blocks)


def new_autoencoder(run: Run) -> AutoencoderKL:
    """Return an untrained AutoencoderKL of factor 4 with 8 latent channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=run.size.vae_channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        sample_size=PICTURE_PX,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def loss_of(vae: AutoencoderKL, pixels: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """Return the loss of one batch: encoder against latents, decoder against pixels, blockwise colour."""
    coded = vae.encode(pixels).latent_dist
    difference = vae.decode(latents + 0.08 * noise).sample - pixels
    # an average over blocks is colour; its own term keeps it from being traded against edges
    colour = F.avg_pool2d(difference, BLOCK_PX).abs().mean()
    encoder = (coded.mean - latents).square().mean() + 0.001 * (coded.logvar + 8).square().mean()
    return encoder + difference.abs().mean() + 2 * difference.square().mean() + colour


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of encoding and decoding pixels in [-1, 1]."""
    drawn = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return -10 * math.log10(float(((pixels - drawn) / 2).square().mean()))


def fixed_targets(run: Run, pictures: np.ndarray, start: Path | None) -> Callable[[Tensor], Tensor]:
    """Return a function from pixels to target latents: the start's own encoder, or a block PCA of the corpus."""
    if start is not None:
        teacher = AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32).to(run.device).eval()
        return lambda pixels: teacher.encode(pixels).latent_dist.mode()
    projection, mean = block_projection(to_pixels(pictures[: min(3000, len(pictures))]))
    projection, mean = projection.to(run.device), mean.to(run.device)
    return lambda pixels: project(pixels, projection, mean)


def train(run: Run, vae: AutoencoderKL, pictures: np.ndarray, start: Path | None) -> None:
    """Train on random crops until the budget is spent; the first 64 pictures only measure."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    path, step, used = run.path("autoencoder.pt"), 0, 0.0
    if (saved := load_checkpoint(path)) is not None:
        vae.load_state_dict(saved["vae"])
        optimizer.load_state_dict(saved["optimizer"])
        step, used = saved["step"], saved["used_seconds"]
    targets, budget, saved_at = (
        fixed_targets(run, pictures, start),
        Budget(run.size.autoencoder_seconds, used),
        used,
    )
    shown = to_pixels(pictures[:HELD_OUT]).to(run.device)
    while budget.fraction < 1:
        peak = PEAK_RATE * (0.4 if start else 1.0)
        set_rate(optimizer, falling_rate(peak, budget.fraction, step, hold=0.1, warmup_steps=50))
        generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
        rows = torch.randint(min(HELD_OUT, len(pictures) // 2), len(pictures), (BATCH,), generator=generator)
        top, left = (torch.randint(0, 9, (2,), generator=generator) * BLOCK_PX).tolist()
        crop = to_pixels(pictures[rows.sort().values.numpy()])[..., top : top + CROP_PX, left : left + CROP_PX]
        crop = crop.to(run.device)
        with torch.no_grad():
            latents = targets(crop)
        noise = torch.randn(latents.shape, generator=generator).to(run.device)
        loss = loss_of(vae, crop, latents, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"autoencoder {step} {budget.used_seconds:.0f}s {psnr(vae, shown):.2f} dB", flush=True)
        if budget.used_seconds - saved_at > 60 or budget.fraction >= 1:
            saved_at = budget.used_seconds
            state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(path, {**state, "step": step, "used_seconds": saved_at})


def make_autoencoder(run: Run, start: Path | None = None) -> None:
    """Train the autoencoder of a run; with `start`, keep that one's latents and improve its drawing."""
    make_corpus(run)
    torch.manual_seed(run.seed)
    vae = AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32) if start else new_autoencoder(run)
    vae = vae.to(run.device).train()
    train(run, vae, np.load(run.path("pictures.npy"), mmap_mode="r"), start)
    part = run.path("vae.part")
    vae.eval().save_pretrained(part)
    shutil.rmtree(autoencoder_folder(run), ignore_errors=True)
    part.rename(autoencoder_folder(run))


def load_autoencoder(run: Run) -> AutoencoderKL:
    """Return the finished autoencoder in float32."""
    return AutoencoderKL.from_pretrained(autoencoder_folder(run), torch_dtype=torch.float32).to(run.device).eval()


@torch.no_grad()
def encode_corpus(run: Run) -> Tensor:
    """Return the latents float16 [N, 8, 16, 16] of every picture; computed once and kept on disk."""
    path = run.path("latents.npy")
    if not path.exists():
        vae, pictures = load_autoencoder(run), np.load(run.path("pictures.npy"), mmap_mode="r")
        coded = [
            vae.encode(to_pixels(pictures[i : i + 250]).to(run.device)).latent_dist.mode().half().cpu().numpy()
            for i in range(0, len(pictures), 250)
        ]
        np.save(path, np.concatenate(coded))
    return torch.from_numpy(np.load(path))


@torch.no_grad()
def decode(run: Run, latents: Tensor) -> Tensor:
    """Return pictures float32 [N, 3, 64, 64] in [-1, 1] of latents."""
    return load_autoencoder(run).decode(latents).sample.clamp(-1, 1).float().cpu()


def main() -> None:
    """Train the autoencoder on the corpus."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("--start", type=Path, help="an autoencoder folder whose latents are kept")
    arguments = options.parse_args()
    make_autoencoder(run_from(arguments), arguments.start)


if __name__ == "__main__":
    main()
