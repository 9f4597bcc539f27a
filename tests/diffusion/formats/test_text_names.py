"""The projection of Stable Diffusion XL's second text encoder, which lies beside the tower, in LoRAs and in files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, attach_lora, merge_lora
from dbcli.diffusion.adapters.mix import merge_loras
from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.formats.diffusers_loading import lora_as_diffusers_reads_it, misread_layers
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, attached_lora, module_shapes
from dbcli.diffusion.formats.lora_files import read_lora
from dbcli.diffusion.formats.lora_writing import for_diffusers, for_kohya, write_diffusers_lora, write_kohya_lora
from dbcli.diffusion.formats.lycoris import ProductLayer
from dbcli.diffusion.formats.text_names import name_in_files, path_in
from tests.diffusion import tiny_models

PART, PROJECTION = "text_encoder_2", "text_projection"
QUERY, WIDE = "encoder.layers.1.self_attn.q_proj", "encoder.layers.0.mlp.fc1"


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_models.model("sdxl")


def lora_on(base: Base, *names: str) -> LoraWeights:
    """Random layers of rank 2 and alpha 4 in the second text encoder."""
    generator, shapes = torch.Generator().manual_seed(2), module_shapes(base.networks[PART])
    layers = {}
    for name in names:
        outputs, inputs = shapes[name]
        down, up = (torch.randn(shape, generator=generator) for shape in ((2, inputs), (outputs, 2)))
        layers[name] = LoraLayer(down, up, 4.0)
    return LoraWeights({PART: {**layers}})


def weight_of(network: Any) -> torch.Tensor:
    weight: torch.Tensor = network.text_projection.weight.detach()
    return weight


def test_the_projection_alone_has_no_prefix() -> None:
    assert name_in_files("text_projection.weight") == "text_projection.weight"
    assert name_in_files("text_model.text_projection.weight") == "text_projection.weight"
    assert name_in_files("final_layer_norm.weight") == "text_model.final_layer_norm.weight"
    assert name_in_files(f"text_model.{QUERY}") == f"text_model.{QUERY}"


def test_a_path_has_the_prefix_where_the_network_has_the_tower() -> None:
    flat, deep = nn.Module(), nn.Module()
    deep.text_model = nn.Module()
    assert [path_in(network, QUERY) for network in (flat, deep)] == [QUERY, f"text_model.{QUERY}"]
    assert [path_in(network, PROJECTION) for network in (flat, deep)] == [PROJECTION, PROJECTION]


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
@pytest.mark.parametrize("others", [(), (QUERY,), (WIDE,)], ids=["alone", "attention", "mlp"])
def test_a_lora_on_the_projection_comes_back_here_and_in_diffusers(
    base: Base, tmp_path: Path, kind: str, others: tuple[str, ...]
) -> None:
    lora, path = lora_on(base, PROJECTION, *others), tmp_path / "l.safetensors"
    if kind == "kohya":
        lora, stem = for_kohya(lora), "lora_te2_text_projection.lora_down"
        write_kohya_lora(path, lora, base.family, configs=base.configs, dtype=torch.float32)
    else:
        lora, stem = for_diffusers(lora), "text_encoder_2.text_projection.lora_A"
        write_diffusers_lora(path, lora, base, dtype=torch.float32)
    assert f"{stem}.weight" in load_file(path)
    assert not any("text_model_text_projection" in name.replace(".", "_") for name in load_file(path))
    read, theirs = read_lora(path, base), lora_as_diffusers_reads_it(base, path)
    assert read.part(PART).keys() == lora.part(PART).keys() >= {PROJECTION, *others}
    assert misread_layers(read.part(PART), lora.part(PART)) == []
    assert misread_layers(theirs.part(PART), lora.part(PART)) == []


def test_attached_or_merged_it_changes_the_projection(base: Base) -> None:
    lora = lora_on(base, QUERY, PROJECTION)
    attached, merged = copy.deepcopy(base.networks[PART]), copy.deepcopy(base.networks[PART])
    attach_lora({PART: attached}, lora)
    assert attached_lora({PART: attached}).part(PART).keys() == {QUERY, PROJECTION}
    merge_lora(attached)
    merge_loras({PART: merged}, [(lora, 0.5), (lora, 0.5)])
    layer = lora.part(PART)[PROJECTION]
    assert isinstance(layer, LoraLayer)
    expected = weight_of(base.networks[PART]) + 4.0 / 2 * layer.up @ layer.down
    for network in (attached, merged):
        torch.testing.assert_close(weight_of(network), expected, rtol=0, atol=1e-5)


def test_a_lokr_on_the_projection_is_attached(base: Base) -> None:
    network = copy.deepcopy(base.networks[PART])
    factors = {"lokr_w1": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "lokr_w2": torch.full((48, 48), 0.5)}
    attach_lora({PART: network}, LoraWeights({PART: {PROJECTION: ProductLayer(factors, 1.0)}}))
    merge_lora(network)
    expected = weight_of(base.networks[PART]) + torch.kron(factors["lokr_w1"], factors["lokr_w2"])
    torch.testing.assert_close(weight_of(network), expected, rtol=0, atol=1e-5)


def test_a_run_on_all_linear_layers_learns_it_and_goes_on_from_it(base: Base) -> None:
    own, again = (copy.deepcopy(dict(base.tunable)) for _ in range(2))
    options = LoraOptions(2, 4.0, ["to_q"], ["all-linear"], train_text=True)
    trained = add_lora(own, options)
    names = [name for name in trained.tensors if PROJECTION in name]
    assert len(names) == 2
    for name in names:
        trained.tensors[name].data.fill_(0.1)
    resumed = add_lora(again, options, start=attached_lora(own))
    assert all(torch.equal(resumed.tensors[name], trained.tensors[name]) for name in names)
