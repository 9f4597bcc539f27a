"""The loss on photos that training never sees, at noise and levels that are the same at every step of every run."""

from collections.abc import Sequence

import torch

from dbcli.diffusion.noise import normal_rows
from dbcli.diffusion.precision import autocast
from dbcli.diffusion.training import losses
from dbcli.diffusion.training.batches import Row
from dbcli.diffusion.training.state_files import with_averages
from dbcli.diffusion.training.trainer import Trainer

# A photo is shown at the middle of as many equal parts of the way from image to noise.
LEVELS = 8
# Not the run's: runs are to be compared, whatever their seeds.
SEED = 0


@torch.no_grad()
def held_out_errors(trainer: Trainer, rows: Sequence[Row]) -> torch.Tensor:
    """The mean squared error of each row at each level, float32 `[len(rows), LEVELS]`, of what the result would be now.

    No other loss or weight of the run counts, except its masks. The state of training and of random numbers stays.
    """
    with with_averages(trainer), autocast(trainer.loop.precision, trainer.device):
        return torch.stack([_errors(trainer, row, place) for place, row in enumerate(rows)])


def _errors(trainer: Trainer, row: Row, place: int) -> torch.Tensor:
    inputs, process, device = trainer.inputs, trainer.objective.process, trainer.device
    shape = inputs.images.shape_of(row.image)
    noise = normal_rows(shape, SEED, "held out", place, range(LEVELS)).to(device)
    levels = torch.stack([process.level_at((part + 0.5) / LEVELS) for part in range(LEVELS)]).to(device)
    clean = inputs.images.draw([row.image], torch.zeros(1, *shape)).to(device)
    mask = None if inputs.loss_weights is None else inputs.loss_weights[row.image].to(device)
    found = []
    # No more rows at once than a step has photos.
    for part in torch.arange(LEVELS).split(inputs.batches.batch_size):
        latents = clean.expand(len(part), *shape)
        conditioning = inputs.prompts.rows([row.prompt] * len(part))
        if inputs.frames:
            conditioning = conditioning.framed([inputs.frames[row.image]] * len(part))
        own = part.to(device)
        noisy = process.noised(latents, noise[own], levels[own])
        prediction = trainer.denoiser(noisy, levels[own], conditioning)
        errors = losses.squares(prediction, process.target(latents, noise[own], levels[own]))
        found.append(losses.row_means(errors, None if mask is None else mask.expand(len(part), *mask.shape)))
    return torch.cat(found).float().cpu()
