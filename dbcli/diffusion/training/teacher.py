"""The frozen base as the teacher of a class: its own prediction takes the noise's place as the target.

A LoRA has its base at hand: the adapter is switched off for a moment. A full fine-tuning has not, so the base's
predictions are computed beforehand for a finite set of draws: draw k of class image i has a noise, a noise level and
a latent that follow from (seed, k, i) alone, whichever run, batch or machine asks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from dbcli.diffusion.conditioning import PromptTable
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Denoiser
from dbcli.diffusion.families.process import Process
from dbcli.diffusion.files.writing import write_tensor_file
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.noise import generator_for, normal_rows
from dbcli.diffusion.precision import autocast
from dbcli.diffusion.training.batches import Row

PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Draw:
    """What a stored prediction was made for: posterior noise and noise `[C, h, w]`, and a level, a scalar."""

    spread: torch.Tensor
    noise: torch.Tensor
    level: torch.Tensor


class Teacher(Protocol):
    """Gives the targets of class rows, and says where a row's noise is not the run's own."""

    def draw(self, row: Row) -> Draw | None:
        """The noise and level a row must have; None where any will do."""

    def targets(self, rows: Sequence[Row], noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """The base's predictions `[len(rows), C, h, w]` for noisy latents of that shape."""


class AdapterOff:
    """The base beneath an adapter, asked with the prompts as the base's own text encoder reads them."""

    def __init__(self, denoiser: Denoiser, prompts: PromptTable) -> None:
        self._denoiser, self._prompts = denoiser, prompts

    def draw(self, row: Row) -> Draw | None:
        return None

    @torch.no_grad()
    def targets(self, rows: Sequence[Row], noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        conditioning = self._prompts.rows([row.prompt for row in rows])
        with adapter_off(self._denoiser.network):
            return self._denoiser(noisy, levels, conditioning).float()


@dataclass(frozen=True)
class Stored:
    """What is stored of one set of class images, float32 `[draws, images, C, h, w]`, and the seed of its noise."""

    predictions: torch.Tensor
    seed: int


class StoredTeacher:
    """A base that is no longer in memory.

    `places` maps a subject, an image and the prompt it is shown under to what is stored for the latter two, the image's
    index there, and the draw that the subject begins with: those who share class images have draws of their own.
    """

    def __init__(self, places: Mapping[tuple[int, int, int], tuple[Stored, int, int]], process: Process) -> None:
        self._places, self._process = dict(places), process

    def draw(self, row: Row) -> Draw | None:
        stored, image, number = self._place(row)
        return draw_of(stored.seed, number, image, stored.predictions.shape[2:], self._process)

    def targets(self, rows: Sequence[Row], noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        found = []
        for row in rows:
            stored, image, number = self._place(row)
            found.append(stored.predictions[number, image])
        return torch.stack(found).to(noisy.device)

    def _place(self, row: Row) -> tuple[Stored, int, int]:
        """What is stored for a row, the index of its image there, and the number of its draw."""
        stored, image, first = self._places[row.subject, row.image, row.prompt]
        return stored, image, (first + row.epoch) % len(stored.predictions)


@contextmanager
def adapter_off(network: Any) -> Iterator[None]:
    """Takes every adapter layer of a network out of its sums for as long as the block lasts."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def draw_of(seed: int, number: int, image: int, shape: Sequence[int], process: Process) -> Draw:
    """Draw `number` of class image `image`: latents of `shape` `[C, h, w]`, a level of the process."""
    level = process.level(generator_for(seed, "teacher timestep", number, image))[0]
    spread, noise = (
        normal_rows(shape, seed, purpose, number, [image])[0] for purpose in ("teacher posterior", "teacher noise")
    )
    return Draw(spread, noise, level)


@torch.no_grad()
def predict(
    denoiser: Denoiser,
    images: Posterior,
    prompt: Conditioning,
    *,
    seed: int,
    number: int,
    process: Process,
    batch_size: int,
    precision: str = "fp32",
    on_batch: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """A base's predictions for one draw of every class image, float32 `[N, C, h, w]` on the CPU.

    prompt is the class prompt's conditioning, one row; `precision` that of the passes, as `autocast` takes it.
    """
    device, found = next(denoiser.network.parameters()).device, []
    there = process.to(device)
    for start in range(0, len(images), batch_size):
        indices = list(range(start, min(start + batch_size, len(images))))
        draws = [draw_of(seed, number, index, images.mean.shape[1:], process) for index in indices]
        latents = images.draw(indices, torch.stack([draw.spread for draw in draws])).to(device)
        noise = torch.stack([draw.noise for draw in draws]).to(device)
        levels = torch.stack([draw.level for draw in draws]).to(device)
        noisy = there.noised(latents, noise, levels)
        with autocast(precision, device):
            found.append(denoiser(noisy, levels, prompt.expand(len(indices))).float().cpu())
        if on_batch is not None:
            on_batch(len(indices))
    return torch.cat(found)


def write_predictions(file: Path, predictions: torch.Tensor) -> None:
    """Writes the predictions of one draw. Raises OSError where the disk is full."""
    write_tensor_file({PREDICTIONS: predictions.contiguous()}, file)


def read_predictions(file: Path) -> torch.Tensor:
    """Reads what `write_predictions` wrote; the caller has checked the file's hash."""
    from safetensors.torch import load_file

    return load_file(file)[PREDICTIONS]
