"""Inputs of adapted layers under autocast: not converted to and fro, and every bit as if they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.helpers import disable_input_dtype_casting
from torch.utils._python_dispatch import TorchDispatchMode

from dbcli.diffusion.training.trainer import Trainer
from tests.diffusion.small_trainers import lora, run, trainer_for, weights


class Conversions(TorchDispatchMode):
    """Counts how often a tensor's type is changed."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


def as_peft_does(trainer: Trainer) -> Trainer:
    trainer.cast_loras = []
    return trainer


def counted(trainer: Trainer) -> int:
    with Conversions() as conversions:
        trainer.step()
    return conversions.count


def test_a_lora_learns_the_same_bits_with_fewer_conversions() -> None:
    ours, theirs = trainer_for(lora(), precision="bf16", steps=4), trainer_for(lora(), precision="bf16", steps=4)
    assert counted(ours) < counted(as_peft_does(theirs))
    assert run(ours) == run(theirs)
    assert all(torch.equal(one, weights(theirs)[name]) for name, one in weights(ours).items())


@pytest.mark.parametrize(("how", "precision"), [({"dora": True}, "bf16"), ({}, "fp32")], ids=["DoRA", "float32"])
def test_elsewhere_inputs_are_what_peft_makes_of_them(how: dict[str, Any], precision: str) -> None:
    trainer = trainer_for(lora(**how), precision=precision, steps=2)
    assert trainer.cast_loras == []
    # The same place as when nobody says anything, which PEFT's own switch would say, too.
    with disable_input_dtype_casting(trainer.denoiser.network, active=False):
        assert run(trainer) == run(as_peft_does(trainer_for(lora(**how), precision=precision, steps=2)))


def test_between_steps_a_lora_on_a_half_base_draws_without_autocast() -> None:
    trainer = trainer_for(lora(kept="bf16"), precision="bf16", steps=2)
    trainer.step()
    assert trainer.cast_loras
    latents, text = torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16), torch.zeros(1, 8, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        drawn = trainer.denoiser.network(latents, 10, encoder_hidden_states=text).sample
    assert drawn.dtype == torch.bfloat16 and drawn.isfinite().all()
