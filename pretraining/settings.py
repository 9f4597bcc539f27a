"""Sizes of the pretraining run: the real one, and a toy that exercises every stage in a minute or two."""

import argparse
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from dbcli.diffusion.precision import autocast

PICTURE_PX = 128
# Scenes and sprites were first drawn at 64 px: a line that was one pixel wide there is DETAIL pixels wide here.
DETAIL = PICTURE_PX // 64
LATENT_PX = 16
LATENT_CHANNELS = 24
# The first channels hold what the first edition's latents held, so that its UNet can be gone on with.
FIRST_CHANNELS = 8
# Judges and the classifier see pictures shrunk to this size.
JUDGE_PX = 64
PROMPT_TOKENS = 16
TEXT_WIDTH = 128
VOCABULARY_SIZE = 49408


@dataclass(frozen=True)
class Size:
    """Everything that differs between the real run and the toy; budgets are seconds (see `progress.Budget`)."""

    name: str
    images: int
    identities: int
    unet_channels: tuple[int, int, int]
    vae_channels: tuple[int, int, int, int]
    image_width: int
    image_layers: int
    batch_size: int
    autoencoder_seconds: float
    clip_seconds: float
    base_seconds: float
    judge_seconds: float


REAL = Size("real", 60_000, 320, (64, 128, 192), (24, 48, 112, 144), 160, 5, 32, 4000, 740, 40_000, 600)
TOY = Size("toy", 192, 6, (32, 32, 32), (8, 8, 16, 16), 64, 1, 8, 3, 3, 5, 2)


@dataclass(frozen=True)
class Run:
    """One pretraining folder, its size, its seed and the device that works on it."""

    folder: Path
    size: Size
    seed: int
    device: torch.device
    bfloat16: bool

    def path(self, name: str) -> Path:
        """Return a file or folder inside the pretraining folder, whose parent exists."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def autocast(self) -> AbstractContextManager[object]:
        """Return the mixed-precision context of this run; on a processor short attention stays in float32."""
        return autocast("bf16" if self.bfloat16 else "fp32", self.device)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows the options every stage shares."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--work", type=Path, default=Path("build/pretraining"), help="folder of the run")
    options.add_argument("--toy", action="store_true", help="toy size: minutes on two cores, no network")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--fp32", action="store_true", help="no bfloat16 autocast on a GPU")
    options.add_argument("--bf16", action="store_true", help="bfloat16 autocast on a processor made for it")
    options.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1))
    return options


def run_from(arguments: argparse.Namespace) -> Run:
    """Turn parsed options into a Run, and fix the number of threads."""
    torch.set_num_threads(arguments.threads)
    size = TOY if arguments.toy else REAL
    # On processors without instructions for it, bfloat16 makes the backward pass of convolutions three times slower;
    # on those that have them (avx512_bf16) a step of the autoencoder is a quarter faster, one of the base nearly half.
    bfloat16 = arguments.bf16 or (arguments.device.startswith("cuda") and not arguments.fp32)
    return Run(arguments.work, size, arguments.seed, torch.device(arguments.device), bfloat16)
