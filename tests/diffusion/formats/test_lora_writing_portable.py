"""A LoRA in the form that all its readers understand alike, read by diffusers' own pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dbcli.diffusion.bases.base import Base, load_base
from dbcli.diffusion.formats.diffusers_loading import lora_as_diffusers_reads_it, misread_layers
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, module_shapes
from dbcli.diffusion.formats.lora_writing import for_diffusers, for_kohya, write_diffusers_lora, write_kohya_lora
from tests.diffusion import tiny_models

TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
SUBSETS = [subset for count in range(1, 7) for subset in itertools.combinations(TEXT, count)]
UNET = [
    "to_q",
    "to_out.0",
    "proj_in",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(str(tiny_models.write_folder(tmp_path_factory.mktemp("base") / "narrow")))


def layers(network, targets, *, most: int = 6, ranks=(4,), alphas=(8.0,)) -> dict[str, LoraLayer]:
    """Random layers for up to `most` modules whose paths end in one of the targets."""
    generator = torch.Generator().manual_seed(3)
    shapes = {
        name: shape
        for name, shape in module_shapes(network).items()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    }
    found = {}
    for number, (name, shape) in enumerate(itertools.islice(shapes.items(), most)):
        rank = ranks[number % len(ranks)]
        down = torch.randn(rank, *shape[1:], generator=generator)
        up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator)
        found[name] = LoraLayer(down, up, alphas[number % len(alphas)])
    assert found
    return found


def deltas(part: Mapping[str, LoraLayer]) -> dict[str, torch.Tensor]:
    """alpha / rank · up · down of every layer that adds something."""
    products = {
        name: layer.alpha / layer.rank * (layer.up.flatten(1) @ layer.down.flatten(1)) for name, layer in part.items()
    }
    return {name: product for name, product in products.items() if product.abs().max() > 0}


def as_diffusers_reads(base: Base, kind: str, path: Path, lora: LoraWeights) -> LoraWeights:
    if kind == "kohya":
        write_kohya_lora(path, for_kohya(lora), base.family, dtype=torch.float32)
    else:
        write_diffusers_lora(path, for_diffusers(lora), base, dtype=torch.float32)
    return lora_as_diffusers_reads_it(base, path)


def assert_same_change(found: Mapping[str, LoraLayer], expected: Mapping[str, LoraLayer]) -> None:
    one, other = deltas(found), deltas(expected)
    assert one.keys() == other.keys()
    for name, delta in other.items():
        torch.testing.assert_close(one[name], delta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
@pytest.mark.parametrize("targets", SUBSETS, ids="+".join)
def test_every_choice_of_text_targets_loads_in_diffusers(tmp_path: Path, base: Base, kind: str, targets) -> None:
    lora = LoraWeights({"text_encoder": layers(base.text_encoder, targets)})
    found = as_diffusers_reads(base, kind, tmp_path / "l.safetensors", lora)
    assert_same_change(found.part("text_encoder"), lora.part("text_encoder"))


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
@pytest.mark.parametrize("target", UNET)
def test_every_target_of_the_unet_loads_in_diffusers(tmp_path: Path, base: Base, kind: str, target: str) -> None:
    lora = LoraWeights({"unet": layers(base.unet, [target])})
    found = as_diffusers_reads(base, kind, tmp_path / "l.safetensors", lora)
    assert_same_change(found.part("unet"), lora.part("unet"))


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
@pytest.mark.parametrize("alphas", [(2.0, 3.0, 5.0), (8.0,), (1.0, 0.0, 4.0), (0.0,)])
def test_layers_of_differing_rank_and_alpha_load_in_diffusers(tmp_path: Path, base: Base, kind: str, alphas) -> None:
    # (2, 3, 5) is the LoRA without alphas: alpha = rank, whatever the rank of the layer.
    varied = {"ranks": (2, 3, 5), "alphas": alphas, "most": 12}
    unet, text = layers(base.unet, ["to_q", "conv1"], **varied), layers(base.text_encoder, TEXT, **varied)
    lora = LoraWeights({"unet": unet, "text_encoder": text})
    found = as_diffusers_reads(base, kind, tmp_path / "l.safetensors", lora)
    assert_same_change(found.part("unet"), lora.part("unet"))
    assert_same_change(found.part("text_encoder"), lora.part("text_encoder"))


def test_for_diffusers_the_strength_is_in_the_weights_and_alpha_is_the_rank() -> None:
    lora = LoraWeights({"unet": {"one": LoraLayer(torch.ones(4, 3), torch.ones(5, 4), 8.0)}})
    layer = for_diffusers(lora).part("unet")["one"]
    assert (layer.rank, layer.alpha) == (4, 4.0)
    assert torch.equal(layer.up, torch.full((5, 4), 2.0))
    assert torch.equal(layer.down, torch.ones(4, 3))


def test_for_diffusers_smaller_ranks_are_filled_up_so_that_any_rule_for_alpha_gives_the_same() -> None:
    ranks = {"one": 2, "two": 5}
    layers = {name: LoraLayer(torch.ones(rank, 3), torch.ones(4, rank), 1.0) for name, rank in ranks.items()}
    made = for_diffusers(LoraWeights({"unet": layers})).part("unet")
    assert {(layer.rank, layer.alpha) for layer in made.values()} == {(5, 5.0)}
    # alpha 1 at rank 2 of ones: each weight is 1/2 · 2 = 1; at rank 5: 1/5 · 5 = 1.
    for layer in made.values():
        assert torch.equal(layer.up @ layer.down, torch.ones(4, 3))


def test_for_kohya_an_alpha_that_layers_agree_on_is_kept_to_the_bit() -> None:
    lora = LoraWeights({"unet": {"one": LoraLayer(torch.rand(4, 3), torch.rand(5, 4), 8.0)}})
    assert for_kohya(lora).part("unet")["one"] is lora.part("unet")["one"]


def test_for_kohya_layers_of_other_alphas_take_the_commonest() -> None:
    alphas = {"one": 8.0, "two": 8.0, "three": 2.0}
    layer = {name: LoraLayer(torch.ones(4, 3), torch.ones(5, 4), alpha) for name, alpha in alphas.items()}
    made = for_kohya(LoraWeights({"unet": layer})).part("unet")
    assert {one.alpha for one in made.values()} == {8.0}
    assert torch.equal(made["three"].up, torch.full((5, 4), 0.25))


def test_magnitudes_stay_as_they_are_where_the_strength_moves_into_the_weights() -> None:
    magnitude = torch.rand(5)
    lora = LoraWeights({"unet": {"one": LoraLayer(torch.rand(2, 3), torch.rand(5, 2), 8.0, magnitude)}})
    assert torch.equal(for_diffusers(lora).part("unet")["one"].magnitude, magnitude)


def test_a_layer_that_is_left_out_or_has_another_strength_is_named() -> None:
    layer = LoraLayer(torch.ones(2, 3), torch.ones(4, 2), 2.0)
    stronger = LoraLayer(layer.down, layer.up, 4.0)
    assert misread_layers({"one": layer, "two": stronger}, {"one": layer, "two": layer, "three": layer}) == [
        "two",
        "three",
    ]
