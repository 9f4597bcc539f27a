"""Networks that rest: their weights are there while they are called, and at no other time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dbcli.diffusion.bases import stored_layers
from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.conditioning import embed_prompts
from dbcli.diffusion.devices import idle_in_training, offload, on_device
from dbcli.diffusion.formats.diffusers_folder import write_base
from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images
from dbcli.diffusion.unloading import can_be_unloaded, is_unloaded, reloaded, remember_files, unload
from tests.diffusion import tiny_models, tiny_z_image


def resting_layer() -> nn.Linear:
    layer = nn.Linear(2, 2)

    def reload(device: torch.device | None) -> None:
        layer.load_state_dict({"weight": torch.eye(2), "bias": torch.ones(2)}, assign=True)

    remember_files(layer, reload)
    unload(layer)
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


def test_only_a_network_that_is_as_its_files_have_it_can_be_unloaded() -> None:
    networks = [nn.Sequential(nn.Linear(2, 2)) for _ in range(4)]
    for network in networks[1:]:
        remember_files(network, lambda device: None)
    unknown, same, replaced, longer = networks
    replaced[0].weight.data = replaced[0].weight.data.clone()
    longer.append(nn.Linear(2, 2))
    assert [can_be_unloaded(network) for network in networks] == [False, True, False, False]
    assert not is_unloaded(unknown) and not is_unloaded(same)


def test_what_no_step_needs_leaves_memory_and_nothing_that_comes_of_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "model", tiny_models.model(), dtype=torch.float16)
    # Below this size networks stay in memory, as those of a tiny model would.
    monkeypatch.setattr(stored_layers, "WIDENED_BELOW", 0)
    base = load_base(str(tmp_path / "model"))
    request, settings = SampleRequest("a dog", seed=1), SamplingSettings(steps=1, width=64, height=64)

    def result(name: str) -> tuple[torch.Tensor, list[bytes]]:
        ((_, image),) = sample_images(base, [request], settings)
        write_base(tmp_path / name, base, dtype=torch.float32)
        return image, [file.read_bytes() for file in sorted((tmp_path / name).rglob("*.safetensors"))]

    before = result("before")
    offload(*idle_in_training(base, trains_text=False))
    assert is_unloaded(base.vae) and is_unloaded(base.text_encoder) and not is_unloaded(base.unet)
    after = result("after")
    assert torch.equal(before[0], after[0]) and before[1] == after[1] and len(after[1]) == 3
    assert is_unloaded(base.vae) and is_unloaded(base.text_encoder)


def test_a_base_in_a_pickle_stays_in_memory_as_the_pickle_would_stay_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "model", tiny_models.model(), dtype=torch.float16)
    vae = tmp_path / "model" / "vae"
    torch.save(load_file(vae / "diffusion_pytorch_model.safetensors"), vae / "diffusion_pytorch_model.bin")
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    monkeypatch.setattr(stored_layers, "WIDENED_BELOW", 0)
    base = load_base(str(tmp_path / "model"))
    offload(*idle_in_training(base, trains_text=False))
    assert not is_unloaded(base.vae) and not is_unloaded(base.text_encoder)


def test_small_networks_stay_in_memory(tmp_path: Path) -> None:
    write_base(tmp_path / "model", tiny_models.model(), dtype=torch.float16)
    base = load_base(str(tmp_path / "model"))
    offload(*idle_in_training(base, trains_text=False))
    assert not is_unloaded(base.vae) and not is_unloaded(base.text_encoder)
