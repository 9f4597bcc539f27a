"""Networks that rest: their weights are there while they are called, and at no other time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.conditioning import embed_prompts
from dbcli.diffusion.devices import idle_in_training, on_device
from dbcli.diffusion.unloading import is_unloaded, reloaded, unload
from tests.diffusion import tiny_z_image


def resting_layer() -> nn.Linear:
    layer = nn.Linear(2, 2)

    def reload(device: torch.device | None) -> None:
        layer.load_state_dict({"weight": torch.eye(2), "bias": torch.ones(2)}, assign=True)

    unload(layer, reload)
    return layer


def test_weights_are_there_inside_and_gone_after_it_even_after_a_fault() -> None:
    layer, other = resting_layer(), nn.Linear(2, 2)
    assert is_unloaded(layer) and not is_unloaded(other)
    with reloaded(layer, other):
        assert layer(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]
        with reloaded(layer):
            pass
        assert not is_unloaded(layer)
    assert is_unloaded(layer)
    with pytest.raises(ValueError, match="fault"), reloaded(layer):
        raise ValueError("fault")
    assert is_unloaded(layer) and not other.weight.is_meta


def test_moving_networks_for_a_moment_wakes_those_that_rest() -> None:
    layer, other = resting_layer(), nn.Linear(2, 2)
    with on_device(torch.device("cpu"), layer, other):
        assert not is_unloaded(layer)
    assert is_unloaded(layer)


def test_a_language_model_is_in_memory_only_while_prompts_are_encoded(tmp_path: Path) -> None:
    base = load_base(str(tiny_z_image.write_folder(tmp_path / "model")))
    assert is_unloaded(base.text_encoder) and base.unet.device.type != "meta"
    first, again = (embed_prompts(base, ["a dog"]).states for _ in range(2))
    assert torch.equal(first, again) and is_unloaded(base.text_encoder)
    assert idle_in_training(base, trains_text=False) == [base.vae]
