"""Noise put in and what is to be predicted of it, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from dbcli.diffusion.families.process import Diffusion, level_rows
from dbcli.diffusion.schedulers.samplers import alphas_of

# a = 0.64: sqrt(a) = 0.8, sqrt(1 - a) = 0.6, SNR = 0.64 / 0.36 = 16/9. a = 0.2: SNR = 1/4.
ALPHAS = torch.tensor([0.64, 0.2])
EPSILON, V = Diffusion(ALPHAS, "epsilon"), Diffusion(ALPHAS, "v_prediction")


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_noise_is_mixed_in_by_the_square_roots_of_alpha() -> None:
    # 0.8 * 2 + 0.6 * 1 = 2.2
    mixed = EPSILON.noised(rows(2.0), rows(1.0), torch.tensor([0]))
    assert mixed.item() == pytest.approx(2.2)


def test_the_epsilon_target_is_the_noise() -> None:
    assert EPSILON.target(rows(2.0), rows(1.0), torch.tensor([0])).item() == 1.0


def test_the_velocity_target_turns_noise_against_signal() -> None:
    # 0.8 * 1 - 0.6 * 2 = -0.4
    assert V.target(rows(2.0), rows(1.0), torch.tensor([0])).item() == pytest.approx(-0.4)


def test_signal_can_be_recovered_from_velocity() -> None:
    latents, noise, step = rows(2.0), rows(1.0), torch.tensor([0])
    mixed = V.noised(latents, noise, step)
    velocity = V.target(latents, noise, step)
    # x0 = sqrt(a) x_t - sqrt(1 - a) v
    assert (0.8 * mixed - 0.6 * velocity).item() == pytest.approx(2.0)


def test_min_snr_for_epsilon_is_the_clipped_over_the_whole_ratio() -> None:
    weights = EPSILON.weight(torch.tensor([0, 1]), 1.0)
    # min(16/9, 1) / (16/9) = 9/16; min(1/4, 1) / (1/4) = 1
    assert weights.tolist() == pytest.approx([9 / 16, 1.0])


def test_min_snr_for_velocity_divides_by_one_more() -> None:
    weights = V.weight(torch.tensor([0, 1]), 1.0)
    # 1 / (16/9 + 1) = 9/25; (1/4) / (1/4 + 1) = 1/5
    assert weights.tolist() == pytest.approx([9 / 25, 1 / 5])


def test_min_snr_is_finite_where_no_signal_is_left() -> None:
    weights = Diffusion(torch.tensor([0.0])).weight(torch.tensor([0]), 5.0)
    assert weights.tolist() == [1.0]


def test_without_a_gamma_all_rows_count_alike() -> None:
    assert V.weight(torch.tensor([0, 1, 1]), None).tolist() == [1.0, 1.0, 1.0]


def test_levels_are_whole_timesteps_of_the_table_that_follow_from_the_row_alone() -> None:
    process = Diffusion(torch.linspace(0.9, 0.1, 10))
    one, both = level_rows(process, 3, 7, [5]), level_rows(process, 3, 7, [4, 5])
    assert one.item() == both[1].item()
    assert {level_rows(process, 0, step, [0]).item() for step in range(200)} == set(range(10))


def test_a_level_by_its_share_is_so_far_into_the_table() -> None:
    assert Diffusion(torch.zeros(1000)).level_at(0.3).item() == 300


def test_a_process_is_what_the_scheduler_says() -> None:
    settings = {"beta_start": 0.001, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    process = Diffusion.of(settings)
    assert (process.prediction, process.ends_in_noise) == ("v_prediction", True)
    assert torch.equal(process.alphas, alphas_of(settings))
    assert not Diffusion.of({}).ends_in_noise
