"""Several LoRAs in one model, against PEFT merging each of them alone and against arithmetic by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import set_peft_model_state_dict

from dbcli.diffusion.adapters.attach import attach_lora, merge_lora
from dbcli.diffusion.adapters.mix import layer_change, merge_loras
from dbcli.diffusion.bases import stored_layers
from dbcli.diffusion.bases.stored_layers import round_to
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, attached_lora, lora_to_peft
from tests.diffusion import tiny_models

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYWHERE = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv_shortcut"]


def fresh() -> dict[str, Any]:
    return {name: copy.deepcopy(tiny_models.networks()[name]) for name in ("unet", "text_encoder")}


def made(targets: list[str], text: list[str], *, rank: int, alpha: int, seed: int, dora: bool = False) -> LoraWeights:
    """A LoRA with random values on the layers that `targets` name, as a file would give it."""
    networks, generator = fresh(), torch.Generator().manual_seed(seed)
    parts: dict[str, dict[str, LoraLayer]] = {"unet": {}, "text_encoder": {}}
    for part, names in (("unet", targets), ("text_encoder", text)):
        if not names:
            continue
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=names), networks[part])
        for name, module in networks[part].named_modules():
            if not hasattr(module, "lora_A") or not hasattr(module, "base_layer"):
                continue
            weight = module.base_layer.weight
            down, up = (getattr(module, half)["default"].weight for half in ("lora_A", "lora_B"))
            lengths = weight.detach().flatten(1).norm(dim=1)
            magnitude = lengths * (1 + 0.2 * torch.rand(len(lengths), generator=generator))
            parts[part][name.removeprefix("text_model.")] = LoraLayer(
                torch.randn(down.shape, generator=generator) * 0.1,
                torch.randn(up.shape, generator=generator) * 0.1,
                float(alpha),
                magnitude if dora and part == "unet" else None,
            )
    return LoraWeights(parts)


@pytest.fixture(scope="module")
def loras() -> tuple[LoraWeights, LoraWeights]:
    """Ranks 4 and 2, alphas 8 and 1, overlapping targets, one of them DoRA, one with the text encoder."""
    return (
        made(EVERYWHERE, ["q_proj", "fc1"], rank=4, alpha=8, seed=1),
        made([*ATTENTION, "conv1"], ["v_proj", "fc1"], rank=2, alpha=1, seed=2, dora=True),
    )


def predicted(networks: dict[str, Any]) -> torch.Tensor:
    """What the UNet says of fixed noise under a fixed prompt's embedding, float32 `[1, 4, 8, 8]`."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (1, 77), generator=generator)
    latents = torch.randn((1, 4, 8, 8), generator=generator)
    with torch.no_grad():
        states = networks["text_encoder"](ids).last_hidden_state
        return networks["unet"](latents, torch.tensor([400]), states).sample


def composed(loras: list[tuple[LoraWeights, float]]) -> dict[str, Any]:
    networks = fresh()
    merge_loras(networks, loras)
    return networks


def changes_by_peft(lora: LoraWeights) -> dict[str, torch.Tensor]:
    """What PEFT, merging one LoRA alone, changes: parameter name -> difference."""
    networks, plain, found = fresh(), fresh(), {}
    attach_lora(networks, lora)
    for part in networks:
        merge_lora(networks[part])
        before = plain[part].state_dict()
        found |= {f"{part}.{name}": tensor - before[name] for name, tensor in networks[part].state_dict().items()}
    return found


@pytest.mark.parametrize("shares", [(0.7, 1.3), (-0.7, 1.3), (-1.0, -0.5)])
def test_the_prediction_is_that_of_the_base_and_the_scaled_changes(
    loras: tuple[LoraWeights, LoraWeights], shares: tuple[float, float]
) -> None:
    by_hand = fresh()
    for lora, share in zip(loras, shares, strict=True):
        changes = changes_by_peft(lora)
        for part, network in by_hand.items():
            for name, tensor in network.state_dict().items():
                tensor += share * changes[f"{part}.{name}"]
    plain, wanted = predicted(fresh()), predicted(by_hand)
    found = predicted(composed(list(zip(loras, shares, strict=True))))
    assert (wanted - plain).abs().max() > 0.01
    assert (found - wanted).abs().max() < 1e-5


# PEFT wonders about the second adapter, which is what is asked for.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning:peft")
def test_two_plain_loras_predict_what_peft_predicts_with_both_switched_on() -> None:
    loras = [made(EVERYWHERE, ["fc1"], rank=4, alpha=8, seed=3), made(ATTENTION, [], rank=2, alpha=1, seed=4)]
    networks = fresh()
    for number, lora in enumerate(loras):
        for part, (config, tensors) in lora_to_peft(lora, networks).items():
            inject_adapter_in_model(LoraConfig(**config), networks[part], adapter_name=f"lora{number}")
            set_peft_model_state_dict(networks[part], tensors, adapter_name=f"lora{number}")
    for network in networks.values():
        for module in network.modules():
            if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
                module.set_adapter(["lora0", "lora1"])
                if "lora1" in module.lora_A:
                    module.set_scale("lora1", 0.8)
    assert lora_to_peft(loras[1], networks).keys() == {"unet"}
    found = predicted(composed([(loras[0], 1.0), (loras[1], 0.8)]))
    assert (found - predicted(networks)).abs().max() < 1e-5


def test_order_does_not_count_and_one_alone_is_what_it_was(loras: tuple[LoraWeights, LoraWeights]) -> None:
    one, other = loras
    assert torch.equal(predicted(composed([(one, 0.5), (other, 0.8)])), predicted(composed([(other, 0.8), (one, 0.5)])))
    networks = fresh()
    attach_lora(networks, other)
    assert (predicted(composed([(other, 1.0)])) - predicted(networks)).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lengths_on_some_layers_alone_attach_as_they_merge(
    loras: tuple[LoraWeights, LoraWeights], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_layers, "WIDENED_BELOW", 0)
    dora = loras[1]
    plain = {name for number, name in enumerate(dora.part("unet")) if number % 3}
    mixed = dora.changed(
        lambda layers: {name: replace(one, magnitude=None) if name in plain else one for name, one in layers.items()}
    )
    assert mixed.is_mixed and not dora.is_mixed
    # What adds nothing is of neither kind.
    assert not mixed.changed(
        lambda layers: {name: replace(one, up=0 * one.up) if name in plain else one for name, one in layers.items()}
    ).is_mixed
    attached, merged = fresh(), fresh()
    for networks in (attached, merged):
        for network in networks.values():
            round_to(network, dtype)
    attach_lora(attached, mixed)
    merge_loras(merged, [(mixed, 1.0)])
    assert (predicted(attached) - predicted(merged)).abs().max() < 1e-5
    again = attached_lora(attached)
    assert {name for name, layer in again.part("unet").items() if layer.magnitude is None} == plain


def test_a_plain_change_worked_out_by_hand() -> None:
    layer = LoraLayer(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]]), alpha=2.0)
    # alpha 2 / rank 1, times (3, 0) outer (1, 2)
    assert layer_change(layer, torch.ones(2, 2)).tolist() == [[6.0, 12.0], [0.0, 0.0]]


def test_a_dora_change_worked_out_by_hand() -> None:
    layer = LoraLayer(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]), 1.0, torch.tensor([10.0, 3.0]))
    # first row (1, 4) + (2, 0) = (3, 4), length 5, brought to 10; second (0, 1), length 1, brought to 3
    weight = torch.tensor([[1.0, 4.0], [0.0, 1.0]])
    assert layer_change(layer, weight).tolist() == [[5.0, 4.0], [0.0, 2.0]]
