"""The loss against numbers worked out by hand, and against a second computation written another way."""

from __future__ import annotations

import math

import pytest
import torch

from dbcli.diffusion.families.process import Diffusion, Flow
from dbcli.diffusion.training.losses import (
    PseudoHuber,
    dreambooth_loss,
    pseudo_huber,
    row_means,
    squared_error,
)
from dbcli.diffusion.training.objective import Objective


def test_squared_error_is_a_mean_for_every_row() -> None:
    prediction = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]])
    target = torch.tensor([[[[0.0, 0.0]]], [[[0.0, 2.0]]]])
    # (1 + 9) / 2 = 5 and (0 + 4) / 2 = 2
    assert squared_error(prediction, target).tolist() == [5.0, 2.0]


def test_masked_error_counts_only_where_the_mask_is() -> None:
    prediction, target = torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1, 1, 2)
    # weights 1 and 3: (1 * 1 + 3 * 9) / 4 = 7
    assert squared_error(prediction, target, torch.tensor([[[[1.0, 3.0]]]])).item() == 7.0


def test_subject_and_prior_are_joined_by_the_prior_weight() -> None:
    # subject error 1, prior error 4, weight 0.5: 1 + 0.5 * 4 = 3
    parts = dreambooth_loss(torch.tensor([1.0, 4.0]), torch.ones(2), 1, 0.5)
    assert (parts.total.item(), parts.subject.item(), parts.prior.item()) == (3.0, 1.0, 4.0)


def test_each_term_is_the_mean_over_its_own_rows() -> None:
    # subject (1 + 3) / 2 = 2, prior (2 + 4 + 9) / 3 = 5, weight 1: 7
    parts = dreambooth_loss(torch.tensor([1.0, 3.0, 2.0, 4.0, 9.0]), torch.ones(5), 2, 1.0)
    assert parts.total.item() == 7.0


def test_without_class_rows_there_is_no_prior_term() -> None:
    parts = dreambooth_loss(torch.tensor([1.0, 3.0]), torch.ones(2), 2, 1.0)
    assert parts.total.item() == 2.0
    assert parts.prior is None


def test_row_weights_belong_to_their_own_rows() -> None:
    # subject 2 * 0.5 = 1, prior 3 * 2 = 6, weight 1: 7
    parts = dreambooth_loss(torch.tensor([2.0, 3.0]), torch.tensor([0.5, 2.0]), 1, 1.0)
    assert parts.total.item() == 7.0


def test_the_gradient_of_one_row_is_worked_out_by_hand() -> None:
    prediction = torch.tensor([[[[3.0, 1.0]]], [[[2.0, 0.0]]]], requires_grad=True)
    errors = squared_error(prediction, torch.zeros_like(prediction))
    dreambooth_loss(errors, torch.tensor([1.0, 0.5]), 1, 2.0).total.backward()
    # row 0: 2 x / 2 = x; row 1: prior weight 2 * row weight 0.5 * 2 x / 2 = x
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == [3.0, 1.0, 2.0, 0.0]


@pytest.mark.parametrize("subject_rows", [1, 2, 4])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_whole_loss_equals_a_computation_number_by_number(
    subject_rows: int, prediction_type: str, gamma: float | None
) -> None:
    generator = torch.Generator().manual_seed(subject_rows)
    count, alphas = 2 * subject_rows, torch.linspace(0.999, 0.005, 1000).double()
    latents, noise, prediction = (torch.randn(count, 2, 3, 3, generator=generator).double() for _ in range(3))
    steps = torch.randint(0, 1000, (count,), generator=generator)
    process = Diffusion(alphas, prediction_type)
    target, weights = process.target(latents, noise, steps), process.weight(steps, gamma)
    found = dreambooth_loss(squared_error(prediction, target), weights, subject_rows, 0.7).total.item()

    terms = []
    for row in range(count):
        a = float(alphas[steps[row]])
        weight = 1.0
        if gamma is not None:
            ratio = a / (1 - a)
            weight = min(ratio, gamma) / (ratio + (1 if prediction_type == "v_prediction" else 0))
        total = 0.0
        for guess, signal, spread in zip(
            prediction[row].flatten().tolist(),
            latents[row].flatten().tolist(),
            noise[row].flatten().tolist(),
            strict=True,
        ):
            aim = spread if prediction_type == "epsilon" else math.sqrt(a) * spread - math.sqrt(1 - a) * signal
            total += (guess - aim) ** 2 / 18
        terms.append(weight * total)
    expected = sum(terms[:subject_rows]) / subject_rows + 0.7 * sum(terms[subject_rows:]) / subject_rows
    assert found == pytest.approx(expected, rel=1e-6)


def test_losses_of_parts_sum_to_that_of_the_whole_batch() -> None:
    # Subject errors 1 and 3, class error 4 with weight 2, prior weight 0.5: (1 + 3) / 2 + 0.5 * 8 / 1
    nothing = torch.zeros(0)
    parts = [
        dreambooth_loss(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2.0]), 1, 0.5, of_rows=(2, 1)),
        dreambooth_loss(torch.tensor([3.0]), torch.tensor([1.0]), 1, 0.5, of_rows=(2, 1)),
        dreambooth_loss(nothing, nothing, 0, 0.5, of_rows=(2, 1)),
    ]
    assert sum(float(one.total) for one in parts) == 6.0
    assert sum(float(one.subject) for one in parts) == 2.0
    assert sum(float(one.prior) for one in parts if one.prior is not None) == 8.0


def test_a_part_without_class_rows_in_its_batch_has_no_prior_term() -> None:
    part = dreambooth_loss(torch.tensor([3.0]), torch.tensor([1.0]), 1, 1.0, of_rows=(2, 0))
    assert float(part.total) == 1.5
    assert part.prior is None


# a = 0.64 and 0.2: noise over signal 0.75 and 2; the second and the first half of the table.
ALPHAS = torch.tensor([0.64, 0.2])


def test_the_widths_of_pseudo_huber_fall_towards_noise() -> None:
    levels, process = torch.tensor([0, 1]), Diffusion(ALPHAS)
    # snr: 0.1 + 0.9 / (1 + 0.75)^2 and 0.1 + 0.9 / (1 + 2)^2
    assert PseudoHuber("snr", 0.1).widths(process, levels).tolist() == pytest.approx([0.1 + 0.9 / 1.75**2, 0.2])
    # exponential: 0.1^(0 / 2) and 0.1^(1 / 2)
    assert PseudoHuber("exponential", 0.1).widths(process, levels).tolist() == pytest.approx([1.0, 0.1**0.5])
    assert PseudoHuber("constant", 0.1).widths(process, levels).tolist() == pytest.approx([0.1, 0.1])


def test_the_widths_on_flow_are_those_of_its_shares_of_noise() -> None:
    levels = torch.tensor([0.0, 0.5, 1.0])
    # Noise over signal is s / (1 - s): 1 + it is 1 / (1 - s), so 0.1 + 0.9 (1 - s)^2.
    assert PseudoHuber("snr", 0.1).widths(Flow(), levels).tolist() == pytest.approx([1.0, 0.1 + 0.9 / 4, 0.1])
    assert PseudoHuber("exponential", 0.01).widths(Flow(), levels).tolist() == pytest.approx([1.0, 0.1, 0.01])


def test_pseudo_huber_and_its_gradient_by_hand() -> None:
    prediction = torch.tensor([[[[3.0, 0.0]]], [[[0.0, -12.0]]]], requires_grad=True)
    errors = pseudo_huber(prediction, torch.zeros_like(prediction), torch.tensor([4.0, 5.0]))
    # 2 * 4 * (sqrt(9 + 16) - 4) = 8 and 2 * 5 * (sqrt(144 + 25) - 5) = 80
    assert errors.flatten().tolist() == pytest.approx([8.0, 0.0, 0.0, 80.0])
    row_means(errors).sum().backward()
    # 2 c x / sqrt(x^2 + c^2), of a mean over two: 24 / 5 / 2 and -120 / 13 / 2
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == pytest.approx([2.4, 0.0, 0.0, -60 / 13])


def test_pseudo_huber_of_small_errors_is_their_square_to_the_last_digits() -> None:
    small = torch.tensor([[[[1e-5, 3e-6]]]])
    found = pseudo_huber(small, torch.zeros_like(small), torch.tensor([1.0]))
    assert found.flatten().tolist() == pytest.approx([1e-10, 9e-12], rel=1e-5)


def test_a_mask_weighs_errors_of_any_kind() -> None:
    errors = torch.tensor([[[[8.0, 80.0]]]])
    # weights 3 and 1: (24 + 80) / 4
    assert row_means(errors, torch.tensor([[[[3.0, 1.0]]]])).item() == 26.0


def test_an_objective_puts_the_kinds_of_loss_together() -> None:
    prediction, target = torch.tensor([[[[3.0, 0.0]]]]), torch.zeros(1, 1, 1, 2)
    levels, process = torch.tensor([1]), Diffusion(ALPHAS)
    plain, huber = Objective(process), Objective(process, huber=PseudoHuber("constant", 4.0), debiased=True)
    assert plain.errors(prediction, target, levels).item() == 4.5
    assert huber.errors(prediction, target, levels).item() == pytest.approx(4.0)
    assert huber.errors(prediction, target, levels, torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(8.0)
    # a = 0.2: SNR 1/4, 1 / sqrt(1/4) = 2
    assert (plain.weights(levels).item(), huber.weights(levels).item()) == (1.0, 2.0)
    assert Objective(process, min_snr_gamma=0.125).weights(levels).item() == 0.5
