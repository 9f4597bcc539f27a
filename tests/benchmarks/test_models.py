"""The random base: Stable Diffusion v1's shapes as the program ships them, and a folder that loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dbcli.diffusion.bases import single_file
from dbcli.diffusion.bases.assembly import empty_network
from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.families.sd import SD
from tests.diffusion import tiny_models


@pytest.fixture(scope="module")
def models(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("models")


def test_all_of_v1_has_the_published_number_of_values() -> None:
    configs = single_file.shipped_configs("sd-v1")
    counts = {
        name: sum(one.numel() for one in empty_network(name, part, configs[name]).parameters())
        for name, part in SD.parts.items()
    }
    # As the model card's files hold them: the UNet of 860 M, CLIP's ViT-L/14 text encoder, the KL autoencoder.
    assert counts == {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}


def test_every_value_is_in_half_precision_and_signals_keep_their_size(models: ModuleType) -> None:
    networks = models.random_networks(tiny_models.narrow_configs(), seed=0)
    for name, network in networks.items():
        expected = empty_network(name, SD.parts[name], tiny_models.narrow_configs()[name]).state_dict()
        state = network.state_dict()
        assert {key: value.shape for key, value in state.items()} == {key: one.shape for key, one in expected.items()}
        assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    unet = networks["unet"].state_dict()
    assert torch.all(unet["conv_norm_out.weight"] == 1) and torch.all(unet["conv_norm_out.bias"] == 0)
    weight = unet["mid_block.resnets.0.conv1.weight"]  # 96 channels of 3 x 3: a row of 864 values
    assert weight.float().std().item() == pytest.approx(864**-0.5, rel=0.02)


def test_the_base_of_full_size_is_written_from_the_shipped_shapes(
    models: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_file, "shipped_configs", tiny_models.narrow_configs)
    folder = models.write_base(tmp_path / "base", "sd-v1")
    assert models.own_resolution(str(folder)) == 64
    base = load_base(str(folder), offline=True)
    assert (base.prediction_type, base.vae.config.scaling_factor, base.max_tokens) == ("epsilon", 0.18215, 77)
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    values = sum(one.numel() for part in base.networks.values() for one in part.parameters())
    assert 2 * values < weights < 2.1 * values
    with torch.no_grad():
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        predicted = base.unet(latents, torch.tensor(500), torch.zeros(1, 77, 64)).sample
    assert 0.01 < predicted.std().item() < 10
