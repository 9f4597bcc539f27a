"""The shapes of learning-rate schedules, by values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dbcli.diffusion.training.optimisers import Optimisation, build_optimiser, rate_factor


def factors(steps: int, **how: object) -> list[float]:
    factor = rate_factor(Optimisation(1e-3, **how), steps)  # type: ignore[arg-type]
    return [factor(step) for step in range(steps)]


def test_cosine_restarts_begins_anew_in_every_cycle() -> None:
    # Half a cosine a cycle: 3 cycles of 4 steps each.
    cycle = [0.5 * (1 + math.cos(math.pi * place / 4)) for place in range(4)]
    assert factors(12, schedule="cosine-restarts", schedule_cycles=3) == pytest.approx(cycle * 3)
    assert factors(12, schedule="cosine-restarts", schedule_cycles=1) == pytest.approx(factors(12, schedule="cosine"))


def test_polynomial_falls_with_its_power_to_its_end() -> None:
    # 0.25 + 0.75 (1 - t)^2 at t = 0, 1/4, 1/2, 3/4.
    quadratic = factors(4, schedule="polynomial", schedule_power=2.0, schedule_end=0.25)
    assert quadratic == pytest.approx([1.0, 0.25 + 0.75 * 0.5625, 0.25 + 0.75 * 0.25, 0.25 + 0.75 * 0.0625])
    linear = factors(4, schedule="polynomial", schedule_power=1.0)
    assert linear == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_the_warm_up_comes_before_the_shape() -> None:
    assert factors(6, schedule="polynomial", schedule_power=1.0, warmup_steps=2) == pytest.approx(
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    )


@pytest.mark.parametrize("how", [{"optimizer": "adafactor"}, {"fused_backward": True}, {"stochastic_rounding": True}])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "cosine-restarts", "polynomial"])
def test_every_schedule_goes_with_every_way_to_optimise(schedule: str, how: dict[str, object]) -> None:
    plan = Optimisation(1e-3, schedule=schedule, gradient_clip=0.0, **how)  # type: ignore[arg-type]
    optimiser = build_optimiser({"unet.a": torch.nn.Parameter(torch.zeros(2))}, plan)
    assert optimiser.param_groups[0]["base_rate"] == 1e-3
    assert rate_factor(plan, 10)(0) == 1.0
