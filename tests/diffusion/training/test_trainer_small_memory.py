"""Passes that save memory, the step inside the backward pass and recomputed activations: the result stays."""

from __future__ import annotations

import pytest
import torch

from dbcli.diffusion.training.trainer import Trainer
from tests.diffusion.small_trainers import (
    apart,
    full,
    learnt,
    plain,
    run,
    trainer_for,
)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_fused_into_the_backward_pass_the_loss_curve_is_the_same(optimizer: str) -> None:
    curve = run(trainer_for(full(), optimizer=optimizer, fused_backward=True))
    assert apart(plain(optimizer), curve) < 1e-4
    assert learnt(curve)


def test_gradients_never_all_live_at_once() -> None:
    trainer = trainer_for(full(), fused_backward=True)
    highest = 0

    def look(_: torch.Tensor) -> None:
        nonlocal highest
        highest = max(highest, sum(one.grad.nbytes for one in trainer.parameters if one.grad is not None))

    for parameter in trainer.parameters:
        parameter.register_post_accumulate_grad_hook(look)
        parameter.register_hook(lambda gradient: look(gradient))
    trainer.loss(0).total.backward()
    assert all(one.grad is None for one in trainer.parameters)
    assert highest <= max(one.nbytes for one in trainer.parameters)


def test_recomputed_activations_and_the_fused_step_go_together() -> None:
    curve = run(trainer_for(full(checkpointing=True), fused_backward=True))
    assert apart(plain(), curve) < 1e-4


def test_activations_are_recomputed_in_the_precision_that_they_were_computed_in() -> None:
    plain_bf16 = run(trainer_for(full(), precision="bf16", steps=2))
    assert run(trainer_for(full(checkpointing=True), precision="bf16", steps=2)) == plain_bf16


def saved_bytes(trainer: Trainer) -> int:
    """What one forward pass keeps for the backward pass."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.loss(0)
    return kept


def test_recomputed_activations_change_nothing_but_memory() -> None:
    curve = run(trainer_for(full(checkpointing=True)))
    assert apart(plain(), curve) < 1e-6
    assert saved_bytes(trainer_for(full(checkpointing=True))) < 0.5 * saved_bytes(trainer_for(full()))
