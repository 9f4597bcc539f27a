"""Noise put in and what is to be predicted of it, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dbcli.diffusion.families.process import Diffusion, Flow, level_rows
from dbcli.diffusion.schedulers.samplers import alphas_of
from dbcli.diffusion.training.losses import dreambooth_loss, squared_error
from dbcli.errors import ConfigError, UnsafeFile, UnsupportedFile

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
    assert (process.prediction, process.rescales_guidance) == ("v_prediction", True)
    assert torch.equal(process.alphas, alphas_of(settings))
    assert not Diffusion.of({}).rescales_guidance


def test_flow_mixes_noise_in_by_its_share_and_predicts_the_way_to_it() -> None:
    clean, noise, levels = rows(2.0, 2.0), rows(6.0, 6.0), torch.tensor([0.25, 1.0])
    # 0.75 * 2 + 0.25 * 6 = 3; at level 1 there is noise alone; 6 - 2 = 4 at any level
    assert Flow().noised(clean, noise, levels).flatten().tolist() == [3.0, 6.0]
    assert Flow().target(clean, noise, levels).flatten().tolist() == [4.0, 4.0]


def test_the_image_can_be_recovered_from_the_velocity_of_flow() -> None:
    clean, noise, levels = rows(2.0), rows(6.0), torch.tensor([0.25])
    mixed, velocity = Flow().noised(clean, noise, levels), Flow().target(clean, noise, levels)
    # x0 = x_s - s v = 3 - 0.25 * 4
    assert (mixed - 0.25 * velocity).item() == 2.0


def test_a_shift_moves_levels_towards_noise_and_leaves_the_ends() -> None:
    # 3 * 0.5 / (1 + 2 * 0.5) = 0.75; 3 * 0.25 / (1 + 2 * 0.25) = 0.5
    assert Flow(3.0).shifted(torch.tensor([0.0, 0.25, 0.5, 1.0])).tolist() == [0.0, 0.5, 0.75, 1.0]
    assert Flow.of({"shift": 3.0}).shift == 3.0 and Flow.of({}).shift == 1.0


def test_levels_of_flow_follow_from_the_row_alone_and_are_shifted() -> None:
    one, both = level_rows(Flow(), 3, 7, [5]), level_rows(Flow(), 3, 7, [4, 5])
    assert one.item() == both[1].item()
    plain, moved = (level_rows(Flow(shift), 0, 0, range(2000)) for shift in (1.0, 3.0))
    assert plain.min() >= 0 and plain.max() < 1
    # Of u uniform half lie below 0.5, and of s below 3 * 0.5 / 2 = 0.75.
    assert float((plain < 0.5).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((moved < 0.75).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_min_snr_of_flow_weighs_an_error_of_the_image_as_diffusion_does() -> None:
    # s = 0.2: SNR = 16, min(16, 5) * 0.04 = 0.2; s = 0.5: SNR = 1, 1 * 0.25; s = 1: SNR = 0; s = 0: 5 * 0
    weights = Flow().weight(torch.tensor([0.2, 0.5, 1.0, 0.0]), 5.0)
    assert weights.tolist() == pytest.approx([0.2, 0.25, 0.0, 0.0])
    assert Flow().weight(torch.tensor([0.2, 0.5]), None).tolist() == [1.0, 1.0]


def test_the_loss_of_flow_and_its_gradient_are_worked_out_by_hand() -> None:
    # One weight w predicts v = w x_s. x0 = 2, e = 6: x at 0.25 is 3, at 0.5 it is 4, and the target is 4.
    levels, weight = torch.tensor([0.25, 0.5]), torch.tensor(2.0, requires_grad=True)
    clean, noise = rows(2.0, 2.0), rows(6.0, 6.0)
    errors = squared_error(weight * Flow().noised(clean, noise, levels), Flow().target(clean, noise, levels))
    parts = dreambooth_loss(errors, Flow().weight(levels, None), 1, 0.5)
    # (2 * 3 - 4)^2 + 0.5 (2 * 4 - 4)^2 = 4 + 8; d/dw: 2 * 2 * 3 + 0.5 * 2 * 4 * 4 = 12 + 16
    parts.total.backward()
    assert parts.total.item() == 12.0
    assert weight.grad is not None and weight.grad.item() == 28.0


def test_a_perfect_model_of_flow_is_sampled_to_its_image_in_any_number_of_steps() -> None:
    image, noise = torch.full((1, 1, 2, 2), 0.7), torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    for steps in (1, 2, 9, 30):
        sampler = Flow(3.0).sampler("euler", steps, device="cpu", generators=[])
        latents = sampler.begin(noise)
        for level in sampler.levels:
            assert torch.equal(sampler.shown(latents, level), latents)
            latents = sampler.after((latents - image) / level, level, latents)
        assert torch.allclose(latents, image, atol=1e-5)


def test_the_steps_of_flow_by_hand() -> None:
    # Evenly from 1 down to a half, then shifted: 3 * 0.5 / 2 = 0.75
    assert list(map(float, Flow(3.0).sampler("euler", 2, device="cpu", generators=[]).levels)) == [1.0, 0.75]
    sampler = Flow().sampler("euler", 2, device="cpu", generators=[])
    assert list(map(float, sampler.levels)) == [1.0, 0.5]
    # From x = 8 by velocities 4 and 2: 8 - 0.5 * 4 = 6, 6 - 0.5 * 2 = 5
    latents = sampler.after(rows(4.0), sampler.levels[0], rows(8.0))
    assert latents.item() == 6.0
    assert sampler.after(rows(2.0), sampler.levels[1], latents).item() == 5.0


def test_a_sampler_of_diffusion_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as refused:
        Flow().visited("ddim", 10, "noisiest")
    assert '"ddim"' in str(refused.value) and "euler" in str(refused.value.hint)
    assert Flow().samplers() == ["euler"] and Flow().visited("euler", 10, "noisiest") == "published"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"invert_sigmas": True}, "invert_sigmas"),
        ({"shift": 0}, "shift is 0"),
        ({"shift": "3"}, "shift is '3'"),
        ({"num_train_timesteps": 10}, "num_train_timesteps is 10"),
    ],
)
def test_a_scheduler_of_flow_that_means_something_else_is_refused(settings: dict[str, Any], said: str) -> None:
    usual = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    Flow.check(usual, "a folder")
    with pytest.raises((UnsupportedFile, UnsafeFile), match=said):
        Flow.check(usual | settings, "a folder")


def test_what_a_flow_predicts_is_nobodys_choice() -> None:
    scheduler: dict[str, Any] = {}
    Flow.settle(scheduler, None, "a folder")
    assert scheduler["prediction_type"] == "flow"
    with pytest.raises(ConfigError, match="flow-matching"):
        Flow.settle(scheduler, "epsilon", "a folder")


def test_debiased_weights_of_each_target_are_one_weight_of_the_image() -> None:
    levels = torch.tensor([0, 1])
    # SNR 16/9 and 1/4: an error of the noise counts 1 / sqrt(SNR), 3/4 and 2, one of the image SNR times that,
    # 4/3 and 1/2, and one of v, which is SNR + 1 times the image's, (4/3) / (25/9) and (1/2) / (5/4).
    assert EPSILON.debiased_weight(levels).tolist() == pytest.approx([3 / 4, 2.0])
    assert V.debiased_weight(levels).tolist() == pytest.approx([12 / 25, 2 / 5])
    # s = 0.2: SNR 16, and an error of the image is s^2 that of v: 0.04 * 4 = 0.16
    assert Flow().debiased_weight(torch.tensor([0.2, 0.0, 1.0])).tolist() == pytest.approx([0.16, 0.0, 0.0])


def test_debiased_weights_are_finite_where_no_signal_or_no_noise_is_left() -> None:
    ends, levels = torch.tensor([0.0, 1.0]), torch.tensor([0, 1])
    assert Diffusion(ends).debiased_weight(levels).tolist() == pytest.approx([100.0, 0.0])
    assert Diffusion(ends, "v_prediction").debiased_weight(levels).tolist() == [0.0, 0.0]


def test_shares_and_ratios_of_levels() -> None:
    assert EPSILON.share(torch.tensor([0, 1])).tolist() == [0.0, 0.5]
    assert EPSILON.snr(torch.tensor([0, 1])).tolist() == pytest.approx([16 / 9, 1 / 4])
    assert Flow().share(torch.tensor([0.25])).item() == 0.25
    assert Flow().snr(torch.tensor([0.25])).item() == 9.0
