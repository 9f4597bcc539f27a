"""LoKr and LoHa files of other programs: every factorisation is read, and what cannot be is refused in words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoKrConfig, get_peft_model
from safetensors.torch import load_file, save_file

from dbcli.diffusion.adapters.mix import layer_change
from dbcli.diffusion.adapters.product_layers import new_layer
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.families.sdxl import SDXL
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights
from dbcli.diffusion.formats.lora_files import read_lora
from dbcli.diffusion.formats.lora_writing import for_kohya, write_kohya_lora
from dbcli.diffusion.formats.lycoris import ProductLayer
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"  # [96, 96]
CONVOLUTION = "mid_block.resnets.0.conv1"  # [96, 96, 3, 3]
SHAPES = {LINEAR: (96, 96), CONVOLUTION: (96, 96, 3, 3)}


def stem(module: str) -> str:
    return f"lora_unet_{module.replace('.', '_')}"


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)))


# Names -> shapes of factors for [96, 96], and for [96, 96, 3, 3].
FACTORISATIONS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "whole": (LINEAR, {"lokr_w1": (8, 12), "lokr_w2": (12, 8)}),
    "second ranked": (LINEAR, {"lokr_w1": (8, 8), "lokr_w2_a": (12, 2), "lokr_w2_b": (2, 12)}),
    "first ranked": (LINEAR, {"lokr_w1_a": (8, 2), "lokr_w1_b": (2, 8), "lokr_w2": (12, 12)}),
    "both ranked": (LINEAR, {"lokr_w1_a": (8, 2), "lokr_w1_b": (2, 8), "lokr_w2_a": (12, 2), "lokr_w2_b": (2, 12)}),
    "unbalanced, the larger first": (LINEAR, {"lokr_w1": (24, 4), "lokr_w2": (4, 24)}),
    "whole kernel": (CONVOLUTION, {"lokr_w1": (8, 8), "lokr_w2": (12, 12, 3, 3)}),
    "flat kernel": (CONVOLUTION, {"lokr_w1": (8, 8), "lokr_w2_a": (12, 2), "lokr_w2_b": (2, 108)}),
    "kernel of four dimensions": (CONVOLUTION, {"lokr_w1": (8, 8), "lokr_w2_a": (12, 2), "lokr_w2_b": (2, 12, 3, 3)}),
    "Tucker core": (
        CONVOLUTION,
        {"lokr_w1": (8, 8), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 12), "lokr_w2_b": (2, 12)},
    ),
    "LoHa": (LINEAR, {"hada_w1_a": (96, 2), "hada_w1_b": (2, 96), "hada_w2_a": (96, 2), "hada_w2_b": (2, 96)}),
    "LoHa, flat kernel": (
        CONVOLUTION,
        {"hada_w1_a": (96, 2), "hada_w1_b": (2, 864), "hada_w2_a": (96, 2), "hada_w2_b": (2, 864)},
    ),
    "LoHa, Tucker cores": (
        CONVOLUTION,
        {
            **{"hada_w1_a": (2, 96), "hada_w1_b": (2, 96), "hada_t1": (2, 2, 3, 3)},
            **{"hada_w2_a": (2, 96), "hada_w2_b": (2, 96), "hada_t2": (2, 2, 3, 3)},
        },
    ),
}  # fmt: skip


def written(tmp_path: Path, name: str, **changes: torch.Tensor | None) -> Path:
    module, shapes = FACTORISATIONS[name]
    tensors: dict[str, Any] = {key: drawn(*shape) for key, shape in shapes.items()} | changes
    path = tmp_path / "odd.safetensors"
    save_file({f"{stem(module)}.{key}": tensor for key, tensor in tensors.items() if tensor is not None}, path)
    return path


def by_numpy(tensors: dict[str, torch.Tensor], alpha: float | None) -> np.ndarray[Any, Any]:
    """The change as Yeh et al. 2023 (arXiv:2309.14859) define it, in float64, by NumPy's own Kronecker product."""
    found = {name: tensor.double().numpy() for name, tensor in tensors.items()}

    def matrix(name: str, core: str) -> np.ndarray[Any, Any]:
        if name in found:
            return found[name]
        outer, inner = found[f"{name}_a"], found[f"{name}_b"]
        if core in found:
            return np.tensordot(np.tensordot(outer.T, found[core], 1), inner.T, (1, 1)).transpose(0, 3, 1, 2)
        return outer @ inner.reshape(len(inner), -1)

    rank = next((len(found[name]) for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in found), None)
    scale = 1.0 if alpha is None or rank is None else alpha / rank
    if "hada_w1_a" in found:
        return scale * matrix("hada_w1", "hada_t1") * matrix("hada_w2", "hada_t2")
    first, second = matrix("lokr_w1", ""), matrix("lokr_w2", "lokr_t2")
    return scale * np.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second)


def changed(path: Path) -> dict[str, torch.Tensor]:
    """What a file changes in the narrow UNet, by layer."""
    lora, network = read_lora(path, tiny_models.model()), tiny_models.networks()["unet"]
    return {name: layer_change(layer, network.get_submodule(name).weight) for name, layer in lora.part("unet").items()}


@pytest.mark.parametrize("alpha", [None, 6.0])
@pytest.mark.parametrize("name", FACTORISATIONS)
def test_every_factorisation_is_read_with_and_without_an_alpha(tmp_path: Path, name: str, alpha: float | None) -> None:
    module, shapes = FACTORISATIONS[name]
    path = written(tmp_path, name, alpha=None if alpha is None else torch.tensor(alpha))
    expected = by_numpy({key: drawn(*shape) for key, shape in shapes.items()}, alpha)
    found = changed(path)[module]
    torch.testing.assert_close(found, torch.from_numpy(expected).float().reshape(SHAPES[module]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "kind", "words"),
    [
        ("whole", {"lokr_w2": torch.ones(40, 40)}, UnsupportedFile, r"another base.*\[96, 96\] here and \[320, 480\]"),
        ("flat kernel", {"lokr_w2_b": torch.ones(2, 12)}, UnsafeFile, "do not fit each other"),
        ("LoHa", {"hada_w1_a": torch.ones(320, 2), "hada_w2_a": torch.ones(320, 2)}, UnsupportedFile, "another base"),
        ("LoHa", {"hada_w2_a": torch.ones(320, 2)}, UnsafeFile, "do not fit each other"),
        ("LoHa", {"hada_w2_b": None}, BaseMissing, "has no hada_w2_b"),
        ("LoHa, Tucker cores", {"hada_t2": None}, BaseMissing, "has no hada_t2"),
        ("whole", {"lokr_w2": None}, BaseMissing, "has no lokr_w2 or lokr_w2_a"),
        ("both ranked", {"lokr_w1_a": torch.ones(8, 3), "lokr_w1_b": torch.ones(3, 8)}, UnsafeFile, "do not fit"),
        ("second ranked", {"lokr_w2_a": torch.ones(12, 3)}, UnsafeFile, "do not fit each other"),
        ("second ranked", {"lokr_w2_b": None}, BaseMissing, "has no lokr_w2_b"),
        ("whole", {"lokr_w2_b": torch.ones(2, 8)}, UnsafeFile, "has lokr_w2 whole and in parts"),
        ("first ranked", {"lokr_w1": torch.ones(8, 8)}, UnsafeFile, "has lokr_w1 whole and in parts"),
        ("whole kernel", {"lokr_t2": torch.ones(2, 2, 3, 3)}, UnsafeFile, "has lokr_w2 whole and in parts"),
        ("whole", {"lora_up.weight": torch.ones(96, 2)}, UnsafeFile, "of several kinds at once"),
        ("whole", {"hada_w1_a": torch.ones(96, 2)}, UnsafeFile, "of several kinds at once"),
        ("second ranked", {"alpha": torch.tensor(float("nan"))}, UnsafeFile, "the alpha of"),
        ("whole", {"lokr_t1": torch.ones(2, 2, 3, 3)}, UnsupportedFile, "lokr_t1, which is not part of a LoRA"),
        ("whole", {"oft_blocks": torch.ones(2, 2, 2)}, UnsupportedFile, "with layers of OFT"),
    ],
)  # fmt: skip
def test_factors_that_do_not_hold_are_refused_in_words(
    tmp_path: Path, name: str, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    path = written(tmp_path, name, **changes)
    with pytest.raises(kind, match=words) as caught:
        read_lora(path, tiny_models.model())
    assert "odd.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        LoKrConfig(r=2, alpha=3, target_modules=["to_q"], decompose_factor=8, init_weights=False),
        LoKrConfig(r=64, alpha=16, target_modules=["to_q"], decompose_factor=8, init_weights=False),
        LoKrConfig(r=2, alpha=3, target_modules=["conv1"], use_effective_conv2d=True, init_weights=False),
        LoHaConfig(r=3, alpha=2, target_modules=["to_q", "conv1"], use_effective_conv2d=True, init_weights=False),
    ],
    ids=["LoKr", "LoKr whose whole matrices PEFT scales", "LoKr with cores", "LoHa"],
)
def test_a_folder_of_pefts_is_read_as_peft_merges_it(tmp_path: Path, config: Any) -> None:
    torch.manual_seed(5)
    network = tiny_models.networks()["unet"]
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    tuned = get_peft_model(copy.deepcopy(network), config)
    tuned.save_pretrained(tmp_path)
    merged = tuned.merge_and_unload().state_dict()
    found = changed(tmp_path / "adapter_model.safetensors")
    assert found
    for name, change in found.items():
        expected = merged[f"{name}.weight"] - before[f"{name}.weight"]
        torch.testing.assert_close(change, expected, rtol=1e-5, atol=2e-6)
    assert {f"{name}.weight" for name in found} == {
        name for name in before if not torch.equal(before[name], merged[name])
    }


def random_lora(kind: Any, **how: Any) -> LoraWeights:
    """Layers of LoKr or LoHa on a linear layer and a convolution, and a plain LoRA on another."""
    usual: dict[str, Any] = {"rank": 2, "alpha": 3.0, "factor": 8, "both": False, "tucker": False}
    with torch.random.fork_rng():
        torch.manual_seed(6)
        layers: dict[str, Any] = {
            name: new_layer(kind, shape, **usual | how).each(torch.randn_like) for name, shape in SHAPES.items()
        }
    plain = LoraLayer(drawn(2, 96), drawn(96, 2), 3.0)
    return LoraWeights({"unet": layers | {LINEAR.replace("to_q", "to_k"): plain}, "text_encoder": {}})


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_an_export_says_its_strength_in_its_factors_and_reads_back_bit_equal(
    tmp_path: Path, kind: str, tucker: bool
) -> None:
    lora, path = random_lora(kind, tucker=tucker), tmp_path / "out.safetensors"
    written = for_kohya(lora)
    write_kohya_lora(path, written, SD, dtype=torch.float32)
    back = read_lora(path, tiny_models.model())
    for name, layer in written.part("unet").items():
        found = back.part("unet")[name]
        assert found.scale == layer.scale
        assert all(torch.equal(found.tensors[key], tensor) for key, tensor in layer.tensors.items())
        if isinstance(layer, ProductLayer):
            shape = SHAPES[name]
            assert layer.scale == 1 and "lokr_t2" not in layer.factors
            expected = lora.part("unet")[name].addition(shape)
            torch.testing.assert_close(layer.addition(shape), expected, rtol=1e-5, atol=1e-5)


def test_names_are_those_of_lycoris_and_of_kohyas_xl(tmp_path: Path) -> None:
    names = write_kohya_lora(tmp_path / "sd.safetensors", random_lora("lokr"), SD)
    first = f"{stem(LINEAR)}."
    assert [name.removeprefix(first) for name in names if name.startswith(first)] == [
        *("alpha", "lokr_w1", "lokr_w2_a", "lokr_w2_b")
    ]
    layer = new_layer("loha", (96, 96), rank=2, alpha=2.0, factor=-1, both=False, tucker=False)
    parts: Any = {"unet": {}, "text_encoder": {}, "text_encoder_2": {"encoder.layers.0.self_attn.q_proj": layer}}
    write_kohya_lora(tmp_path / "xl.safetensors", LoraWeights(parts), SDXL)
    assert sorted(load_file(tmp_path / "xl.safetensors")) == [
        f"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.{ending}"
        for ending in ("alpha", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    ]


@pytest.mark.parametrize("shape", [(96, 1), (1, 96)], ids=["along the outputs", "along the inputs"])
def test_dora_on_a_lokr_changes_what_lycoris_says(tmp_path: Path, shape: tuple[int, int]) -> None:
    module, shapes = FACTORISATIONS["whole"]
    lengths = drawn(*shape).abs() + 1
    path = written(tmp_path, "whole", dora_scale=lengths)
    weight = tiny_models.networks()["unet"].get_submodule(module).weight.detach()
    total = weight + torch.kron(drawn(*shapes["lokr_w1"]), drawn(*shapes["lokr_w2"]))
    norm = total.norm(dim=1 if shape[1] == 1 else 0, keepdim=True)
    torch.testing.assert_close(changed(path)[module], total * lengths / norm - weight, rtol=1e-5, atol=1e-5)
    assert read_lora(path, tiny_models.model()).only_merges
