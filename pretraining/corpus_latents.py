"""The corpus as the UNet sees it: latents of pictures, made when they are first asked for and kept on disk."""

import hashlib

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pretraining.autoencoder import encoder_weights, load_autoencoder
from pretraining.clip import to_pixels
from pretraining.settings import LATENT_CHANNELS, LATENT_PX, Run

PART = 32


def encoder_name(vae: AutoencoderKL) -> str:
    """Return eight digits that differ between encoders; the decoder may learn on without them changing."""
    content = b"".join(weight.detach().cpu().contiguous().numpy().tobytes() for weight in encoder_weights(vae))
    return hashlib.sha256(content).hexdigest()[:8]


class CorpusLatents:
    """The latents of every picture of a run, as an array that fills itself.

    Encoding sixty thousand pictures takes a processor as long as a thousand steps of the UNet, so a training begins
    without waiting for it, and what one sitting encoded the next one finds.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._vae = run, load_autoencoder(run)
        self._images = np.load(run.path("pictures.npy"), mmap_mode="r")
        name = encoder_name(self._vae)
        shape = (len(self._images), LATENT_CHANNELS, LATENT_PX, LATENT_PX)
        self._latents = self._open(f"latents-{name}.npy", np.float16, shape)
        self._known = self._open(f"latents-{name}-known.npy", np.bool_, shape[:1])

    def _open(self, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        path = self._run.path(name)
        if path.exists():
            return np.load(path, mmap_mode="r+")
        return np.lib.format.open_memmap(path, "w+", kind, shape)

    def __len__(self) -> int:
        return len(self._images)

    @torch.no_grad()
    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the latents float16 [B, 24, 16, 16] of pictures number `rows` [B]."""
        asked = rows.numpy()
        missing = np.unique(asked[~self._known[asked]])
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            pixels = to_pixels(self._images[part]).to(self._run.device, memory_format=torch.channels_last)
            self._latents[part] = self._vae.encode(pixels).latent_dist.mode().half().cpu().numpy()
            self._known[part] = True
        return torch.from_numpy(np.asarray(self._latents[asked]))


@torch.no_grad()
def decode(run: Run, latents: Tensor) -> Tensor:
    """Return pictures float32 [N, 3, 128, 128] in [-1, 1] of latents."""
    vae = load_autoencoder(run)
    return torch.cat([vae.decode(part).sample.clamp(-1, 1).float().cpu() for part in latents.split(16)])
