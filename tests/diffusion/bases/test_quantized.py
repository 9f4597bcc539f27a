"""A frozen base in few bits: each weight near itself, and adapters learn on it as on the whole one."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora
from dbcli.diffusion.bases import quantized
from dbcli.diffusion.bases.quantized import NF4_LEVELS, Packed, SmallConvolution, SmallLinear, shrink
from dbcli.diffusion.formats.lora import attached_lora
from tests.diffusion.small_trainers import (
    apart,
    lora,
    plain_lora,
    run,
    small_unet,
    trainer_for,
)


@pytest.mark.parametrize("count", [1, 64, 1000])
@pytest.mark.parametrize("kept", ["int8", "nf4"])
def test_a_packed_weight_is_within_half_a_level_of_itself(kept: str, count: int) -> None:
    weight = torch.randn(count, generator=torch.Generator().manual_seed(count))
    found = Packed.of(weight, kept).unpacked(torch.float32)
    scales = nn.functional.pad(weight.abs(), (0, -count % 64)).view(-1, 64).amax(1).repeat_interleave(64)[:count]
    gap = 1 / 127 if kept == "int8" else max(b - a for a, b in zip(NF4_LEVELS, NF4_LEVELS[1:], strict=False))
    assert ((found - weight).abs() <= scales * gap / 2 * 1.0001).all()
    again = Packed.of(found, kept).unpacked(torch.float32)
    torch.testing.assert_close(again, found)


def test_an_empty_weight_stays_empty() -> None:
    for kept in ("int8", "nf4"):
        assert (Packed.of(torch.zeros(3, 50), kept).unpacked(torch.float32) == 0).all()
    with pytest.raises(ValueError, match="int3"):
        Packed.of(torch.zeros(64), "int3")


@pytest.mark.parametrize("kept", ["int8", "nf4"])
def test_what_is_packed_piece_by_piece_is_as_if_at_once(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(10, 30, generator=torch.Generator().manual_seed(0))
    whole = Packed.of(weight, kept)
    monkeypatch.setattr(quantized, "PACKED_AT_ONCE", 128)
    pieces = Packed.of(weight, kept)
    assert torch.equal(pieces.codes, whole.codes) and torch.equal(pieces.scales, whole.scales)


def test_each_layer_goes_before_the_next_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleDict({str(number): nn.Linear(64, 64) for number in range(4)})
    layers, alive, pack = [weakref.ref(layer) for layer in model.values()], [], Packed.of

    def counted(*args: Any, **kwargs: Any) -> Packed:
        alive.append(sum(layer() is not None for layer in layers))
        return pack(*args, **kwargs)

    monkeypatch.setattr(Packed, "of", counted)
    shrink(model, "int8", ends=())
    assert alive == [4, 3, 2, 1] and all(isinstance(layer, SmallLinear) for layer in model.values())


def test_a_packed_layer_is_the_layer_with_the_unpacked_weight_forwards_and_backwards() -> None:
    torch.manual_seed(0)
    linear, convolution = nn.Linear(30, 20), nn.Conv2d(8, 12, 3, stride=2, padding=1)
    for layer, kind, rows in (
        (linear, SmallLinear, torch.randn(2, 5, 30)),
        (convolution, SmallConvolution, torch.randn(2, 8, 9, 9)),
    ):
        small: Any = kind(layer, Packed.of(layer.weight.detach(), "nf4"))  # type: ignore[arg-type]
        layer.weight.data = small.weight
        inputs = [rows.clone().requires_grad_(True) for _ in range(2)]
        outputs = [small(inputs[0]), layer(inputs[1])]
        torch.testing.assert_close(outputs[0], outputs[1])
        for output in outputs:
            output.square().sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.parametrize(
    ("kept", "precision", "band", "size"),
    [
        ("int8", "fp32", 0.005, 0.30),
        ("nf4", "fp32", 0.05, 0.18),
        ("bf16", "bf16", 0.01, 0.55),
    ],
)
def test_adapters_learn_on_a_small_base_as_on_the_whole_one(
    kept: str, precision: str, band: float, size: float
) -> None:
    model = lora(kept)
    frozen = {name: tensor.clone() for name, tensor in model[0].named_buffers()}
    held = sum(one.nbytes for one in model[0].buffers())
    held += sum(one.nbytes for name, one in model[0].named_parameters() if "lora" not in name)
    assert held < size * sum(one.nbytes for one in small_unet().parameters())
    curve = run(trainer_for(model, precision=precision))
    assert apart(plain_lora(), curve) < band
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model[0].named_buffers())


@pytest.mark.parametrize("kept", ["int8", "nf4"])
def test_offloaded_weights_are_the_same_weights_and_follow_their_network_nowhere(kept: str) -> None:
    unet, _ = lora(kept, offload=True)
    packed = [module for module in unet.modules() if isinstance(module, Packed)]
    here = [tensor.untyped_storage().data_ptr() for tensor in unet.buffers()]
    assert packed and all(one.codes.untyped_storage().data_ptr() not in here for one in packed)
    unet.to("meta")
    assert {one.codes.device.type for one in packed} == {"cpu"}
    # PEFT asks a layer's weight for the device that its adapters go to.
    layers = [module for module in unet.modules() if isinstance(module, SmallLinear | SmallConvolution)]
    assert {layer.weight.device.type for layer in layers} == {"meta"}
    assert run(trainer_for(lora(kept, offload=True), steps=3)) == run(trainer_for(lora(kept), steps=3))


@pytest.mark.parametrize("how", [{"kind": "lokr"}, {"kind": "loha"}, {"initialisation": "orthogonal"}], ids=str)
def test_every_kind_of_adapter_learns_on_offloaded_layers_without_bias(how: dict[str, Any]) -> None:
    assert run(trainer_for(lora("int8", offload=True, **how), steps=2)) == run(
        trainer_for(lora("int8", **how), steps=2)
    )


def test_nothing_of_an_unpacked_weight_is_kept_for_the_backward_pass() -> None:
    unet, _ = lora("int8")
    sizes: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: (sizes.append(one.shape), one)[1], lambda one: one):
        unet(torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 8, 32)).sample.sum()
    packed = {module.packed.shape for module in unet.modules() if isinstance(module, SmallLinear | SmallConvolution)}
    big = {shape for shape in packed if shape.numel() >= 64 * 64}
    assert big and not big & set(sizes)
    assert not {torch.Size(reversed(shape)) for shape in big if len(shape) == 2} & set(sizes)


def test_weight_decomposed_adapters_sit_on_a_packed_base_too() -> None:
    curve = run(trainer_for(lora("int8", dora=True), steps=3))
    assert curve == pytest.approx(run(trainer_for(lora(dora=True), steps=3)), rel=0.01)


@pytest.mark.parametrize("kept", ["int8", "nf4"])
def test_convolutions_of_a_packed_base_get_adapters_of_plain_convolutions(kept: str) -> None:
    model = lora(kept, targets=["to_q", "conv1"])
    halves = [module for name, module in model[0].named_modules() if name.endswith("conv1.lora_A.default")]
    assert halves and all(type(half) is nn.Conv2d for half in halves)
    curve, whole = (run(trainer_for(one, steps=3)) for one in (model, lora(targets=["to_q", "conv1"])))
    assert curve == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_an_adapter_that_is_gone_on_with_on_a_base_in_bf16_keeps_every_bit(dora: bool) -> None:
    trained = lora(targets=["to_q", "conv1"], dora=dora)
    run(trainer_for(trained, steps=2))
    start = attached_lora({"unet": trained[0], "text_encoder": nn.Identity()})
    base: Any = copy.deepcopy(small_unet())
    shrink(base, "bf16", ends=())
    options = LoraOptions(rank=4, alpha=4.0, targets=["to_q"], text_targets=["q_proj"])
    again = add_lora({"unet": base, "text_encoder": nn.Identity()}, options, start)
    assert again.tensors.keys() == trained[1].tensors.keys()
    assert all(torch.equal(tensor, trained[1].tensors[name]) for name, tensor in again.tensors.items())
