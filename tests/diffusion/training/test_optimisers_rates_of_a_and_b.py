"""B matrices at a rate of their own (LoRA+), by numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.training.optimisers import Optimisation, build_optimiser
from tests.diffusion.small_trainers import full, lora, run, trainer_for, weights

A, B, LENGTHS = "lora_A.default.weight", "lora_B.default.weight", "lora_magnitude_vector.default.weight"
WAYS: list[dict[str, Any]] = [{}, {"fused_backward": True}, {"optimizer": "adamw16bit"}]


def pair(*names: str) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros(1, 1)) for name in names}


@pytest.mark.parametrize("how", WAYS)
def test_two_steps_by_hand(how: dict[str, Any]) -> None:
    # A's input is 3, so A B's derivatives are 3 B and 3 A. Of a first gradient AdamW takes the sign; without betas, of
    # every one: A goes 1 -> 0.99, B 0.5 -> 0.5 - 0.04, then A 0.98 and B 0.42.
    named = {f"unet.q.{A}": nn.Parameter(torch.ones(1, 1)), f"unet.q.{B}": nn.Parameter(torch.full((1, 1), 0.5))}
    plan = Optimisation(
        0.01, b_rate_ratio=4.0, beta1=0.0, beta2=0.0, weight_decay=0.0, epsilon=0.0, gradient_clip=0.0, **how
    )
    optimiser = build_optimiser(named, plan)
    a, b = named.values()
    found = []
    for _ in range(2):
        (b @ a * 3).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        found += [a.item(), b.item()]
    assert found == pytest.approx([0.99, 0.46, 0.98, 0.42], rel=1e-6)


def test_each_part_has_its_own_rate_and_the_ratio_to_it() -> None:
    named = pair(f"unet.q.{A}", f"unet.q.{B}", f"unet.q.{LENGTHS}", f"text_encoder.q.{A}", f"text_encoder.q.{B}")
    optimiser = build_optimiser(named, Optimisation(1e-4, {"text_encoder": 5e-5}, b_rate_ratio=16.0))
    rates = {id(one): group["base_rate"] for group in optimiser.param_groups for one in group["params"]}
    assert [rates[id(one)] for one in named.values()] == pytest.approx([1e-4, 1.6e-3, 1e-4, 5e-5, 8e-4])


def test_both_follow_the_schedule() -> None:
    trainer = trainer_for(lora(), steps=4, b_rate_ratio=16.0, schedule="linear", warmup_steps=2)
    found = []
    for _ in range(4):
        reported = trainer.step().learning_rate
        found.append([group["lr"] for group in trainer.optimiser.param_groups])
        assert reported == found[-1][0]
    # Up in two steps, down in two: 0, 1/2, 1, 1/2 of 1e-3, and sixteen times that.
    expected = [[share * 1e-3, share * 1.6e-2] for share in (0.0, 0.5, 1.0, 0.5)]
    assert [one for step in found for one in step] == pytest.approx([one for step in expected for one in step])


def test_b_learns_faster_and_a_as_before() -> None:
    # While B is zero, A has no gradient; so its first step is the decay alone, and B's is its rate.
    plain, plus = (trainer_for(lora(), steps=1, weight_decay=0.0, b_rate_ratio=ratio) for ratio in (1.0, 16.0))
    before = weights(plain)
    for trainer in (plain, plus):
        run(trainer)
    one, other = weights(plain), weights(plus)
    for name, start in before.items():
        if ".lora_B." in name:
            assert torch.allclose(other[name], 16 * one[name], rtol=1e-4) and bool(one[name].any())
        else:
            assert torch.equal(one[name], start) and torch.equal(other[name], start)


@pytest.mark.parametrize("made", [full, lora], ids=["full", "lora"])
def test_at_a_ratio_of_1_there_is_one_group_a_part_in_the_weights_order(made: Any) -> None:
    trainer = trainer_for(made(), steps=1)
    (group,) = trainer.optimiser.param_groups
    assert all(one is other for one, other in zip(group["params"], trainer.parameters, strict=True))
    assert (group["base_rate"], group["lr"]) == (1e-3, 1e-3)
