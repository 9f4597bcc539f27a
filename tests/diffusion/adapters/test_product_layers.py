"""LoKr and LoHa against LyCORIS' own numbers, PEFT's layers, the dense formula, and what they may keep in memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model
from torch import nn

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, merge_lora
from dbcli.diffusion.adapters.product_layers import ProductModule, divided, new_layer, wrap
from dbcli.diffusion.estimate.cost import fake_run
from dbcli.diffusion.formats.lycoris import ProductLayer
from tests.diffusion import tiny_models

OUT, IN, KERNEL = 24, 6, (3, 3)


def values(*shape: int, k: float) -> torch.Tensor:
    """sin(k), sin(2 k), …: the same in any program."""
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(count * k).reshape(shape)


FIRST = {"lokr_w1": values(4, 2, k=0.7)}
FIRST_RANKED = {"lokr_w1_a": values(4, 2, k=0.7), "lokr_w1_b": values(2, 2, k=0.9)}
SECOND_RANKED = {"lokr_w2_a": values(6, 2, k=0.3), "lokr_w2_b": values(2, 3, k=0.5)}
CORE = {"lokr_w2_a": values(2, 6, k=0.3), "lokr_w2_b": values(2, 3, k=0.5), "lokr_t2": values(2, 2, 3, 3, k=0.2)}
HADA = {"hada_w1_a": values(24, 2, k=0.3), "hada_w2_a": values(24, 2, k=0.5)}
HADA_CORES = {
    **{"hada_w1_a": values(2, 24, k=0.3), "hada_w1_b": values(2, 6, k=0.7), "hada_t1": values(2, 2, 3, 3, k=0.2)},
    **{"hada_w2_a": values(2, 24, k=0.5), "hada_w2_b": values(2, 6, k=0.9), "hada_t2": values(2, 2, 3, 3, k=0.4)},
}
# The factors -> what lycoris-lora 4.1.3 makes of them with alpha 3 and rank 2 (functional.lokr and .loha; LokrModule
# for LoKr's core): the entries 0, 7 and the last, the sum and the sum of squares.
LYCORIS: dict[str, tuple[Mapping[str, torch.Tensor], tuple[float, ...]]] = {
    "whole": (
        FIRST | {"lokr_w2": values(6, 3, k=0.3)},
        (0.190379344, 0.642603913, 0.48782044, -0.006752675, 45.308973934),
    ),
    "second ranked": (FIRST | SECOND_RANKED, (0.633048127, 1.175967493, 0.20812769, -0.149448278, 142.244114654)),
    "first ranked": (
        FIRST_RANKED | {"lokr_w2": values(6, 3, k=0.3)},
        (0.410386445, 1.385212965, 0.785218465, 0.380882148, 90.924473774),
    ),
    "both ranked": (FIRST_RANKED | SECOND_RANKED, (0.90974285, 1.689963168, 0.223341338, 5.619716868, 126.86690859)),
    "LoHa": (
        HADA | {"hada_w1_b": values(2, 6, k=0.7), "hada_w2_b": values(2, 6, k=0.9)},
        (-0.212981241, 0.466185367, -0.113824548, -8.087379479, 45.259382459),
    ),
    "convolution, whole": (
        FIRST | {"lokr_w2": values(6, 3, 3, 3, k=0.3)},
        (0.190379344, 0.435145328, 0.628438952, -0.025652794, 365.222005691),
    ),
    "convolution, ranked": (
        FIRST | {"lokr_w2_a": values(6, 2, k=0.3), "lokr_w2_b": values(2, 27, k=0.5)},
        (0.677413183, -0.748449188, 0.520803908, -0.110798453, 1214.732831324),
    ),
    "convolution, Tucker core": (
        FIRST | CORE,
        (-0.460178359, 0.215506919, -1.114247758, -0.792651858, 691.187785785),
    ),
    "convolution, LoHa": (
        HADA | {"hada_w1_b": values(2, 54, k=0.7), "hada_w2_b": values(2, 54, k=0.9)},
        (-0.185432115, 0.143346509, 0.363222055, -10.232848523, 1434.22614635),
    ),
    "convolution, LoHa with cores": (HADA_CORES, (-0.001933346, -0.031444481, 0.201728098, -1.07199307, 186.028884126)),
}


def layer_of(name: str) -> ProductLayer:
    return ProductLayer({key: factor.clone() for key, factor in LYCORIS[name][0].items()}, alpha=3.0)


def base_of(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if name.startswith("convolution"):
            return nn.Conv2d(IN, OUT, KERNEL, stride=2, padding=1)
        return nn.Linear(IN, OUT)


def rows_of(name: str) -> torch.Tensor:
    shape = (2, IN, 9, 7) if name.startswith("convolution") else (2, 5, IN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", LYCORIS)
def test_the_change_is_what_lycoris_makes_of_the_factors(name: str) -> None:
    weight: Any = base_of(name).weight
    change = layer_of(name).addition(weight.shape).flatten()
    found = (change[0], change[7], change[-1], change.sum(), change.square().sum())
    torch.testing.assert_close(torch.stack(found), torch.tensor(LYCORIS[name][1]).double(), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", LYCORIS)
def test_a_layer_gives_and_learns_what_the_whole_change_would(name: str) -> None:
    base, rows = base_of(name), rows_of(name).requires_grad_(True)
    holder = nn.ModuleDict({"one": copy.deepcopy(base)}).requires_grad_(False)
    layer = layer_of(name).each(torch.Tensor.float)
    wrap(holder, "one", layer)
    module: Any = holder["one"]
    output = module(rows)
    output.square().sum().backward()

    factors = {key: factor.clone().requires_grad_(True) for key, factor in layer.factors.items()}
    dense, again = copy.deepcopy(base), rows.detach().clone().requires_grad_(True)
    weight = dense.weight.detach() + ProductLayer(factors, layer.alpha).addition(dense.weight.shape)
    expected = torch.func.functional_call(dense, {"weight": weight, "bias": dense.bias}, (again,))
    expected.square().sum().backward()
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows.grad, again.grad, rtol=1e-4, atol=1e-4)
    for key, factor in factors.items():
        torch.testing.assert_close(getattr(module, key).grad, factor.grad, rtol=1e-4, atol=1e-3, msg=key)


PEFT = {
    "LoKr": LoKrConfig(r=2, alpha=3, decompose_factor=4, init_weights=False),
    "LoKr, both ranked": LoKrConfig(r=1, alpha=3, decompose_both=True, init_weights=False),
    "LoKr with cores": LoKrConfig(r=2, alpha=3, decompose_factor=4, use_effective_conv2d=True, init_weights=False),
    "LoHa": LoHaConfig(r=2, alpha=3, init_weights=False),
    "LoHa with cores": LoHaConfig(r=2, alpha=3, use_effective_conv2d=True, init_weights=False),
}


@pytest.mark.parametrize("name", PEFT)
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_layer_gives_what_pefts_gives(name: str, kind: str) -> None:
    torch.manual_seed(3)
    holder = nn.ModuleDict({"one": nn.Linear(48, 96) if kind == "linear" else nn.Conv2d(48, 96, 3)})
    ours = copy.deepcopy(holder)
    config = copy.deepcopy(PEFT[name])
    config.target_modules = {"one"}
    theirs: Any = inject_adapter_in_model(config, holder)
    names = [key for key in theirs["one"].adapter_layer_names if "default" in getattr(theirs["one"], key)]
    factors = {key: getattr(theirs["one"], key)["default"].detach() for key in names}
    wrap(ours, "one", ProductLayer(factors, 3.0))
    rows = torch.randn(2, 5, 48) if kind == "linear" else torch.randn(2, 48, 6, 5)
    torch.testing.assert_close(ours["one"](rows), theirs["one"](rows), rtol=1e-5, atol=1e-6)


# Worked out by hand, as LyCORIS has it: the smaller number first, whatever the factor.
DIVIDED = {
    (320, 8): (8, 40),
    (320, -1): (16, 20),
    (32, 16): (2, 16),
    (30, 4): (3, 10),
    (127, 8): (1, 127),
    (16, 4): (4, 4),
    (12, 100): (3, 4),
}


@pytest.mark.parametrize("asked", DIVIDED)
def test_sizes_are_divided_as_lycoris_divides_them(asked: tuple[int, int]) -> None:
    assert divided(*asked) == DIVIDED[asked]


SECOND = {"lokr_w2_a": (40, 2), "lokr_w2_b": (2, 80)}


@pytest.mark.parametrize(
    ("how", "shapes"),
    [
        ({"rank": 2}, {"lokr_w1": (8, 8)} | SECOND),
        ({"rank": 40}, {"lokr_w1": (8, 8), "lokr_w2": (40, 80)}),
        ({"rank": 2, "both": True}, {"lokr_w1_a": (8, 2), "lokr_w1_b": (2, 8)} | SECOND),
        ({"rank": 4, "both": True}, {"lokr_w1": (8, 8), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 80)}),
    ],
)
def test_a_new_lokr_has_the_shapes_of_lycoris(how: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    layer = new_layer("lokr", (320, 640), **{"alpha": 1.0, "factor": 8, "both": False, "tucker": False} | how)
    assert {name: tuple(factor.shape) for name, factor in layer.factors.items()} == shapes


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_a_new_adapter_changes_nothing_yet_and_follows_its_seed(kind: Any, tucker: bool) -> None:
    made, before = [], torch.random.get_rng_state()
    for seed in (7, 7, 8):
        networks = {"unet": copy.deepcopy(tiny_models.networks()["unet"])}
        options = LoraOptions(
            2,
            2.0,
            ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"],
            [],
            seed=seed,
            kind=kind,
            factor=4,
            decompose_both=True,
            tucker=tucker,
        )
        trainable = add_lora(networks, options)
        made.append({name: tensor.detach().clone() for name, tensor in trainable.tensors.items()})
        for name, module in networks["unet"].named_modules():
            if isinstance(module, ProductModule):
                weight: Any = module.base_layer.weight
                assert not module.finished_layer().addition(weight.shape).any(), name
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def kept_bytes(module: nn.Module, rows: torch.Tensor) -> int:
    """What a pass keeps for its backward pass, each storage once, weights and input aside."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    known = {one.untyped_storage().data_ptr() for one in (*module.parameters(), rows)}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = module(rows)
    del output
    return sum(one.nbytes() for place, one in storages.items() if place not in known)


@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_less_is_kept_for_the_backward_pass_than_by_a_lora_of_equal_weights(kind: Any) -> None:
    def fresh() -> nn.ModuleDict:
        return nn.ModuleDict({"one": nn.Linear(256, 256)}).requires_grad_(False)

    plain, product = fresh(), fresh()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["one"]), plain)
    wrap(product, "one", new_layer(kind, (256, 256), rank=2, alpha=2.0, factor=16, both=False, tucker=False))
    rows = torch.randn(4, 64, 256, requires_grad=True)
    assert kept_bytes(product["one"], rows) <= kept_bytes(plain["one"], rows)


@pytest.mark.parametrize("tucker", [False, True])
def test_a_loha_of_a_low_rank_never_has_its_whole_change(tucker: bool) -> None:
    holder = nn.ModuleDict({"one": nn.Conv2d(64, 64, 3, padding=1)}).requires_grad_(False)
    layer = new_layer("loha", (64, 64, 3, 3), rank=2, alpha=2.0, factor=-1, both=False, tucker=tucker)
    wrap(holder, "one", layer)
    rows = torch.randn(1, 64, 4, 4)
    peak = fake_run(lambda: holder["one"](rows).sum().backward()).peak_bytes
    # With cores there is no product of two matrices that would come to the same.
    assert (peak < 4 * 64 * 64 * 9) is not tucker


def test_merged_into_its_weight_a_layer_gives_the_same() -> None:
    holder = nn.ModuleDict({"one": base_of("both ranked")}).requires_grad_(False)
    wrap(holder, "one", layer_of("both ranked"))
    rows = rows_of("both ranked")
    before = holder["one"](rows)
    merge_lora(holder)
    assert type(holder["one"]) is nn.Linear
    torch.testing.assert_close(holder["one"](rows), before, rtol=1e-5, atol=1e-5)


def test_taken_out_of_the_sum_a_layer_gives_what_the_base_gives() -> None:
    base = base_of("LoHa")
    holder = nn.ModuleDict({"one": base}).requires_grad_(False)
    wrap(holder, "one", layer_of("LoHa"))
    module: Any = holder["one"]
    module.enable_adapters(False)
    assert torch.equal(module(rows_of("LoHa")), base(rows_of("LoHa")))
    module.enable_adapters(True)
    assert not torch.equal(module(rows_of("LoHa")), base(rows_of("LoHa")))
