"""Which layers of a UNet adapters may be asked for."""

from __future__ import annotations

import pytest
from torch import nn

from dbcli.diffusion.adapters.layer_names import expanded, layers_of, short_names, stored_layers, unusable
from dbcli.diffusion.bases.folder import embedded_folder
from dbcli.diffusion.estimate.meta_base import load_meta_base


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    """That of Stable Diffusion v1.4, without memory."""
    found: nn.Module = load_meta_base("sd-v1-4", None).unet
    return found


def test_all_linear_is_every_linear_layer_of_stable_diffusion(unet: nn.Module) -> None:
    # 16 transformers of 10 each (4 of self-attention, 4 of cross-attention, 2 of the feed-forward part), a time
    # projection in each of 22 residual blocks, 2 for the time embedding; proj_in and proj_out are convolutions here.
    found = expanded(unet, ["all-linear"])
    assert len(found) == 16 * 10 + 22 + 2
    assert all(isinstance(unet.get_submodule(name), nn.Linear) for name in found)


def test_other_names_stay_and_none_comes_twice(unet: nn.Module) -> None:
    both = expanded(unet, ["conv_in", "all-linear", "all-linear"])
    assert both[0] == "conv_in"
    assert len(both) == len(set(both)) == 185


def test_names_that_mean_no_layer_or_no_single_layer_are_told(unet: nn.Module) -> None:
    # to_out is a list of two, 0 is a list's first of whatever kind.
    assert unusable(layers_of(unet), ["to_q", "to_x", "to_out", "0", "conv9", "ff.net.2", "conv1", "all-linear"]) == [
        *("to_x", "to_out", "0", "conv9")
    ]


def test_the_layers_there_are_are_told_by_short_names(unet: nn.Module) -> None:
    found = short_names(layers_of(unet))
    assert {"to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "conv1"} <= set(found)
    assert unusable(layers_of(unet), found) == []


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_headers_name_the_same_layers_as_the_network(component: str) -> None:
    network = getattr(load_meta_base("tiny", None), component)
    stored = stored_layers(embedded_folder() / component)
    assert set(stored) == {path for path, fits in layers_of(network).items() if fits}
    assert short_names(stored) == short_names(layers_of(network))
