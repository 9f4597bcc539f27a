"""The bound on the norm of all gradients."""

from __future__ import annotations

import pytest
import torch

from tests.diffusion.small_trainers import RATE, full, run, trainer_for, weights


def moved(bound: float) -> dict[str, torch.Tensor]:
    """How far one step with a bound on the gradients' norm moves each weight, in proportion to its gradient."""
    # Beside an epsilon of 1 AdamW's division by a gradient's own size is none.
    trainer = trainer_for(full(), steps=1, gradient_clip=bound, epsilon=1.0, weight_decay=0.0, beta1=0.0, beta2=0.0)
    before = weights(trainer)
    run(trainer)
    return {name: value - before[name] for name, value in weights(trainer).items()}


def test_gradients_within_the_bound_stay_as_they_are_and_others_are_shortened_to_it() -> None:
    free = moved(0.0)
    length = float(torch.cat([value.flatten() for value in free.values()]).norm())
    within, beyond = moved(1e6), moved(1e-3)
    assert all(torch.equal(value, free[name]) for name, value in within.items())
    shortened = float(torch.cat([value.flatten() for value in beyond.values()]).norm())
    assert shortened < length / 10
    assert shortened == pytest.approx(1e-3 * RATE, rel=0.05)
