"""Weights in half precision stay so in memory, and nothing of what a model gives depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, make_full, merge_lora
from dbcli.diffusion.bases import stored_layers
from dbcli.diffusion.bases.base import Base, load_base
from dbcli.diffusion.bases.quantized import shrink
from dbcli.diffusion.bases.stored_layers import StoredLinear, keep_as_stored, keep_in, kept_dtype, round_to, widened
from dbcli.diffusion.conditioning import encode_ids, ids_of
from dbcli.diffusion.estimate.cost import fake_run
from dbcli.diffusion.estimate.footprint import weights_bytes
from dbcli.diffusion.estimate.meta_base import load_meta_base
from dbcli.diffusion.formats.diffusers_folder import write_base
from dbcli.diffusion.images import decode, encode
from dbcli.diffusion.precision import autocast
from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images
from dbcli.diffusion.word_vectors import add_words, start_vectors
from tests.diffusion import tiny_models

HALF = torch.float16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model in half precision."""
    found = tmp_path_factory.mktemp("half") / "model"
    write_base(found, tiny_models.model("sdxl"), dtype=HALF)
    return found


@pytest.fixture
def bases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Base, Base]:
    """The same file with its weights as they are stored, and in float32."""
    whole = load_base(str(folder))
    monkeypatch.setattr(stored_layers, "WIDENED_BELOW", 0)
    return load_base(str(folder)), whole


def types(network: nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in network.parameters()}


def test_small_networks_are_widened_and_the_matrices_of_large_ones_kept(bases: tuple[Base, Base]) -> None:
    kept, whole = bases
    for name, network in kept.networks.items():
        assert types(network) == {HALF, torch.float32} and types(whole.networks[name]) == {torch.float32}
        assert all(one.dtype == torch.float32 for one in network.parameters() if one.ndim == 1)
    # The type that latents are given in.
    assert kept.unet.dtype == torch.float32 and kept.unet.conv_in.weight.dtype == torch.float32
    assert kept.hash == whole.hash


def test_the_estimate_counts_weights_as_they_are_kept(bases: tuple[Base, Base]) -> None:
    kept, whole = bases
    assert weights_bytes(load_meta_base(kept.source, None)) == weights_bytes(kept) < 0.6 * weights_bytes(whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_are_the_same_to_the_last_bit(bases: tuple[Base, Base], precision: str) -> None:
    how = SamplingSettings("ddim", 2, 3.0, 0.0, 64, 64, precision=precision)
    drawn = [next(image for _, image in sample_images(base, [SampleRequest("a dog", 0)], how)) for base in bases]
    assert torch.equal(*drawn)


def test_the_autoencoder_computes_in_float32(bases: tuple[Base, Base]) -> None:
    pixels = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posteriors = [encode(base.vae, [pixels]) for base in bases]
    assert torch.equal(posteriors[0].mean, posteriors[1].mean)
    decoded = [decode(base.vae, posteriors[0].mean) for base in bases]
    assert decoded[0].dtype == torch.float32 and torch.equal(*decoded)


def learnt(base: Base, precision: str, *, dora: bool, kept: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Two steps of plain descent of adapters, from a loss of any kind."""
    options = LoraOptions(4, 4.0, ["to_q", "to_out.0", "conv1"], ["q_proj"], dora=dora, train_text=True)
    trainable, noise = add_lora(base.tunable, options), torch.Generator().manual_seed(0)
    if kept is not None:
        keep_in(base.unet, kept)
    for _ in range(2):
        latents = torch.randn(2, 4, 8, 8, generator=noise)
        with autocast(precision, CPU):
            conditioning = encode_ids(base, ids_of(base, ["a sks dog", "a dog"]))
            predicted = base.denoiser(latents, torch.tensor([10, 500]), conditioning)
        torch.autograd.backward(predicted.float().square().mean())
        with torch.no_grad():
            for one in trainable.tensors.values():
                one -= 0 if one.grad is None else one.grad
                one.grad = None
    return {name: one.detach() for name, one in trainable.tensors.items()}


@pytest.mark.parametrize(("precision", "dora"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_adapters_learn_the_same_to_the_last_bit(bases: tuple[Base, Base], precision: str, dora: bool) -> None:
    found, expected = (learnt(base, precision, dora=dora) for base in bases)
    assert {one.dtype for one in found.values()} == {torch.float32}
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(value.abs().max() > 0 for name, value in expected.items() if "lora_B" in name)


def test_a_doras_lengths_are_measured_without_the_whole_network_in_float32(bases: tuple[Base, Base]) -> None:
    unet = bases[0].unet
    options = LoraOptions(4, 4.0, ["to_q", "conv1"], [], dora=True)
    whole = 4 * sum(parameter.numel() for parameter in unet.parameters())
    assert fake_run(lambda: add_lora({"unet": unet}, options)).peak_bytes < whole / 2


def test_weights_in_the_type_that_is_computed_in_teach_the_same_to_the_last_bit(
    folder: Path, bases: tuple[Base, Base]
) -> None:
    kept = load_base(str(folder))
    before = weights_bytes(kept)
    keep_in(kept.unet, torch.bfloat16)
    assert weights_bytes(kept) == before
    found = learnt(kept, "bf16", dora=False, kept=torch.bfloat16)
    assert types(kept.unet) == {torch.bfloat16, torch.float32} and HALF in types(bases[0].unet)
    expected = learnt(bases[0], "bf16", dora=False)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_merged_adapter_is_not_rounded_to_what_the_weights_are_kept_in(bases: tuple[Base, Base]) -> None:
    for base in bases:
        trainable = add_lora(base.tunable, LoraOptions(4, 4.0, ["to_q"], ["q_proj"]))
        with torch.no_grad():
            for name, one in trainable.tensors.items():
                one.fill_(1e-3 if "lora_B" in name else 1e-2)
        merge_lora(base.unet)
    kept, whole = (base.unet.state_dict() for base in bases)
    assert all(torch.equal(kept[name].float(), value) for name, value in whole.items())
    assert {value.dtype for name, value in kept.items() if name.endswith("to_q.weight")} == {torch.float32}


def test_what_learns_in_full_is_in_the_type_that_was_asked_for(bases: tuple[Base, Base]) -> None:
    trainable = make_full(bases[0].tunable, train_text=False)
    assert {one.dtype for one in trainable.tensors.values()} == {torch.float32}
    prediction = bases[0].denoiser(torch.zeros(1, 4, 8, 8), torch.tensor([5]), conditioning(bases[0]))
    torch.autograd.backward(prediction.mean())
    assert all(one.grad is not None for one in trainable.tensors.values())


def conditioning(base: Base) -> object:
    return encode_ids(base, ids_of(base, ["a dog"]))


def test_a_word_that_was_added_is_read_in_float32_beside_the_table(bases: tuple[Base, Base]) -> None:
    found = []
    for base in bases:
        words = start_vectors(base, "zxq", "dog", 1)
        # Between two values of half precision.
        add_words(base, [words.each(lambda vectors: vectors + 2**-14)])
        found.append(encode_ids(base, ids_of(base, ["a zxq in the snow"])).states)
    assert torch.equal(*found)


@pytest.mark.parametrize("kept", ["int8", "nf4"])
def test_packed_weights_are_those_of_float32(bases: tuple[Base, Base], kept: str) -> None:
    for base in bases:
        shrink(base.unet, kept, ends=base.family.ends)
    found = [base.unet.down_blocks[1].resnets[0].conv1.packed for base in bases]
    assert torch.equal(found[0].codes, found[1].codes) and torch.equal(found[0].scales, found[1].scales)


def test_weights_in_half_precision_become_bfloat16_in_the_memory_that_they_have(bases: tuple[Base, Base]) -> None:
    layers = [base.unet.down_blocks[1].resnets[0].conv1 for base in bases]
    place = layers[0].weight.data_ptr()
    for base in bases:
        shrink(base.unet, "bf16", ends=())
    assert layers[0].weight.data_ptr() == place and layers[0].weight.dtype == torch.bfloat16
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_eight_bit_floats_are_kept_in_sixteen_and_other_layers_in_float32() -> None:
    network = nn.ModuleDict({"to_q": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "conv_in": nn.Conv2d(1, 1, 1)})
    stored = torch.float8_e4m3fn
    found = [kept_dtype(network, name, stored) for name in ("to_q.weight", "to_q.bias", "norm.weight")]
    assert found == [HALF, torch.float32, torch.float32]
    assert kept_dtype(network, "conv_in.weight", HALF) == kept_dtype(network, "to_q.weight", torch.float32)
    # All 256 values of both kinds, infinities and what is no number included.
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        every = torch.arange(256, dtype=torch.uint8).view(kind)
        assert torch.equal(every.to(HALF).float().nan_to_num(7.0), every.float().nan_to_num(7.0))


def test_weights_rounded_for_an_export_stay_in_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(2, 1, bias=False)).requires_grad_(False)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1 + 2**-12, 2.0]]))
    small = nn.Sequential(nn.Linear(2, 1, bias=False)).requires_grad_(False)
    small.load_state_dict(network.state_dict())
    round_to(small, HALF)
    monkeypatch.setattr(stored_layers, "WIDENED_BELOW", 0)
    round_to(network, HALF)
    # float16 has ten bits behind the leading one.
    assert network[0].weight.tolist() == small[0].weight.tolist() == [[1.0, 2.0]]
    assert (network[0].weight.dtype, small[0].weight.dtype) == (HALF, torch.float32)
    assert network(torch.tensor([[1.0, 1.0]])).tolist() == [[3.0]]


def test_nothing_widened_is_remembered_for_the_backward_pass() -> None:
    layer = nn.Linear(8, 8, bias=False).requires_grad_(False)
    layer.weight.data = layer.weight.data.to(HALF)
    keep_as_stored(layer)
    assert isinstance(layer, StoredLinear)
    remembered: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: remembered.append(one) or one, lambda one: one):
        output = layer(torch.ones(1, 8, requires_grad=True))
    assert output.requires_grad and not remembered


def test_every_weight_is_widened_into_the_same_memory() -> None:
    small, large = torch.tensor([1.5, -2.25], dtype=HALF), torch.arange(6, dtype=HALF).view(2, 3)
    first = widened.of(large, torch.float32)
    assert first.dtype == torch.float32 and first.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    second = widened.of(small, torch.float32)
    assert second.tolist() == [1.5, -2.25] and second.data_ptr() == first.data_ptr()
    assert first.flatten().tolist()[:3] == [1.5, -2.25, 2.0]
    # One that is in its type already is itself.
    assert widened.of(first, torch.float32) is first
