"""The loss on photos that are kept back: a number that only the weights change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dbcli.diffusion.noise import normal_rows
from dbcli.diffusion.training.batches import Row
from dbcli.diffusion.training.held_out import LEVELS, held_out_errors
from dbcli.diffusion.training.losses import PseudoHuber
from dbcli.diffusion.training.trainer import Trainer
from tests.diffusion.small_trainers import full, lora, run, trainer_for, weights

ROWS = [Row(1, 0), Row(3, 1)]


def by_hand(trainer: Trainer, row: Row, place: int) -> list[float]:
    """Level by level, with the sums written out."""
    inputs, alphas = trainer.inputs, trainer.objective.process.alphas  # type: ignore[attr-defined]
    noise, found = normal_rows((4, 8, 8), 0, "held out", place, range(LEVELS)), []
    trainer.denoiser.network.eval()
    for number in range(LEVELS):
        step = round((2 * number + 1) / (2 * LEVELS) * 1000)
        a, clean = float(alphas[step]), inputs.images.mean[row.image]  # type: ignore[union-attr]
        noisy = a**0.5 * clean + (1 - a) ** 0.5 * noise[number]
        with torch.no_grad():
            guess = trainer.denoiser(noisy[None], torch.tensor([step]), inputs.prompts.rows([row.prompt]))[0]
        found.append(float(((guess - noise[number]) ** 2).mean()))
    trainer.denoiser.network.train()
    return found


def test_it_is_the_error_at_eight_levels_of_the_same_noise() -> None:
    trainer = trainer_for(full(), steps=3)
    run(trainer)
    found = held_out_errors(trainer, ROWS)
    assert found.shape == (2, LEVELS)
    for place, row in enumerate(ROWS):
        assert found[place].tolist() == pytest.approx(by_hand(trainer, row, place), rel=1e-4)


def test_neither_seed_nor_loss_nor_batch_of_a_run_changes_it() -> None:
    one, other = trainer_for(full()), trainer_for(full())
    other.loop = replace(other.loop, seed=9)
    other.objective = replace(
        other.objective, min_snr_gamma=5.0, huber=PseudoHuber("snr", 0.1), offset_noise=0.1, multires_noise=0.3
    )
    other.inputs.batches.batch_size = 3
    torch.testing.assert_close(held_out_errors(one, ROWS), held_out_errors(other, ROWS))


def test_a_mask_weighs_it() -> None:
    trainer = trainer_for(full())
    plain = held_out_errors(trainer, ROWS)
    mask = torch.ones(4, 1, 8, 8)
    mask[1, :, :, 4:] = 0.0
    trainer.inputs = replace(trainer.inputs, loss_weights=mask)
    masked = held_out_errors(trainer, ROWS)
    assert not torch.allclose(masked[0], plain[0]) and torch.equal(masked[1], plain[1])


@pytest.mark.parametrize("settings", [{}, {"optimizer": "schedulefree"}])
def test_measuring_changes_nothing_of_a_run(settings: dict[str, str]) -> None:
    looked_at, left_alone = (trainer_for(lora(dropout=0.1), steps=4, **settings) for _ in range(2))
    for trainer in (looked_at, left_alone):
        while trainer.done < 4:
            trainer.step()
            if trainer is looked_at:
                held_out_errors(trainer, ROWS)
    found, expected = weights(looked_at), weights(left_alone)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_is_that_of_the_averaged_weights() -> None:
    trainer = trainer_for(full(), steps=4, optimizer="schedulefree")
    run(trainer)
    before = held_out_errors(trainer, ROWS)
    trainer.use_averages()
    trainer.forget_optimiser()
    torch.testing.assert_close(held_out_errors(trainer, ROWS), before)
