"""LoRAs begun elsewhere than at zero, or with ranks by timestep: against PEFT, an exact decomposition, by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, attach_lora, merge_lora
from dbcli.diffusion.adapters.initial_values import initial_values
from dbcli.diffusion.adapters.lora_layers import LoraModule
from dbcli.diffusion.bases.pass_timestep import depends_on_timestep
from dbcli.diffusion.formats.lora import LoraWeights, attached_lora
from dbcli.diffusion.formats.timestep_ranks import TimestepRanks, schedule_of
from dbcli.errors import UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models

TARGETS = ["to_q", "conv1"]


def options(
    kind: Any = "pissa", schedule: TimestepRanks | None = None, rank: int = 4, alpha: float = 8.0
) -> LoraOptions:
    return LoraOptions(rank, alpha, TARGETS, [], initialisation=kind, schedule=schedule)


def small_unet() -> Any:
    return copy.deepcopy(tiny_models.networks()["unet"])


def inputs(unet: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, unet.config.in_channels, 8, 8, generator=generator)
    prompts = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator)
    return latents, torch.tensor([100, 900]), prompts


@torch.no_grad()
def output(unet: Any) -> torch.Tensor:
    found: torch.Tensor = unet(*inputs(unet)).sample
    return found


def learnt(unet: Any) -> dict[str, LoraModule]:
    """The layers of a network, every parameter moved from where it began."""
    found = {name: one for name, one in unet.named_modules() if isinstance(one, LoraModule)}
    generator = torch.Generator().manual_seed(5)
    for module in found.values():
        for parameter in (module.lora_A, module.lora_B, module.lora_E):
            if parameter is not None:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return found


@pytest.mark.parametrize("kind", ["pissa", "orthogonal"])
@pytest.mark.parametrize("schedule", [None, TimestepRanks(1, 1000)])
def test_a_new_layer_changes_nothing_and_learns(kind: str, schedule: TimestepRanks | None) -> None:
    unet = small_unet()
    before = output(unet)
    trainable = add_lora({"unet": unet}, options(kind, schedule))
    torch.testing.assert_close(output(unet), before, rtol=1e-4, atol=1e-5)
    per_layer = 3 if kind == "orthogonal" else 2
    layers = [one for one in unet.modules() if isinstance(one, LoraModule)]
    assert len(trainable.tensors) == per_layer * len(layers) > 0
    unet(*inputs(unet)).sample.square().mean().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in trainable.tensors.values())


class Drawn(TorchDispatchMode):
    """Notes the device of everything that is drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def __torch_dispatch__(self, call: Any, types: Any, values: Any = (), named: Any = None) -> Any:
        found = call(*values, **(named or {}))
        if torch.Tag.nondeterministic_seeded in call.tags:
            self.devices.append(found.device.type)
        return found


@pytest.mark.parametrize("kind", ["zero", "orthogonal"])
def test_a_start_is_drawn_on_the_cpu_whatever_the_weights_device(kind: Any) -> None:
    with FakeTensorMode(), Drawn() as drawn:
        start = initial_values(kind, torch.empty(8, 6, device="cuda"), 2, 1.0)
    assert drawn.devices == ["cpu"]
    assert (start.down.device.type, start.up.device.type) == ("cuda", "cuda")


def test_no_random_state_of_any_device_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    for kind in ("zero", "orthogonal"):
        add_lora({"unet": small_unet()}, options(kind))
    assert torch.equal(torch.get_rng_state(), before) and not seeded


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_pissa_begins_with_the_weights_principal_part(strength: float) -> None:
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    start = initial_values("pissa", weight, 4, strength)
    # In float64: among values as close as these two float32 is wrong by 1e-4.
    left, values, right = (part.float() for part in torch.linalg.svd(weight.double()))
    principal = left[:, :4] @ torch.diag(values[:4]) @ right[:4]
    torch.testing.assert_close(strength * start.up @ start.down, principal, rtol=1e-4, atol=1e-4)
    # Half of each value on either side.
    torch.testing.assert_close(strength * start.up.norm(dim=0) ** 2, values[:4], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(strength * start.down.norm(dim=1) ** 2, values[:4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (24, 24)])
def test_a_decomposition_of_a_tall_or_wide_matrix_is_numpys(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    start = initial_values("pissa", weight, 6, 1.0)
    left, values, right = np.linalg.svd(weight.double().numpy())
    # Signs are free, so products count: of the pairs, and of the vectors with themselves.
    np.testing.assert_allclose((start.up @ start.down).numpy(), left[:, :6] * values[:6] @ right[:6], atol=2e-5)
    own = (start.down @ start.down.T).numpy(), (start.up.T @ start.up).numpy()
    for product in own:
        np.testing.assert_allclose(product, np.diag(values[:6]), atol=2e-5)


def test_a_weight_of_few_ranks_or_of_none_begins_a_pissa_all_the_same() -> None:
    drawn = torch.Generator().manual_seed(2)
    weight = torch.randn(24, 2, generator=drawn) @ torch.randn(2, 40, generator=drawn)
    for one in (weight, torch.zeros(24, 40)):
        start = initial_values("pissa", one, 4, 1.0)
        torch.testing.assert_close(start.up @ start.down, one, rtol=0, atol=1e-4)


def test_what_pissa_begins_with_is_what_pefts_takes_out_of_the_weight() -> None:
    torch.manual_seed(2)
    holder = nn.ModuleDict({"to_q": nn.Linear(40, 24)})
    ours, before = copy.deepcopy(holder), holder["to_q"].weight.detach().clone()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q"], init_lora_weights="pissa")
    theirs: Any = inject_adapter_in_model(config, holder)
    add_lora({"unet": ours}, LoraOptions(4, 8.0, ["to_q"], [], initialisation="pissa"))
    module: Any = ours["to_q"]
    taken = before - theirs["to_q"].base_layer.weight.detach()
    torch.testing.assert_close(module.strength * module.start_up @ module.start_down, taken, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.base_layer.weight.detach(), before, rtol=0, atol=0)


def test_an_orthogonal_start_has_orthonormal_vectors_and_the_smallest_values() -> None:
    torch.manual_seed(4)
    start = initial_values("orthogonal", torch.empty(24, 40), 4, 1.0)
    assert start.scales is not None
    torch.testing.assert_close(start.down @ start.down.T, torch.eye(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(start.up.T @ start.up, torch.eye(4), rtol=0, atol=1e-5)
    torch.manual_seed(4)
    drawn = torch.linalg.svdvals(torch.randn(24, 40) / 4)
    torch.testing.assert_close(start.scales, drawn[-4:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["pissa", "orthogonal"])
def test_a_finished_layer_is_an_ordinary_lora_of_twice_the_rank(kind: str) -> None:
    unet = small_unet()
    plain, merged = copy.deepcopy(unet), None
    add_lora({"unet": unet}, options(kind))
    learnt(unet)
    expected, lora = output(unet), attached_lora({"unet": unet})
    assert {layer.rank for layer in lora.layers} == {8} and {layer.scale for layer in lora.layers} == {2.0}
    attach_lora({"unet": plain}, lora)
    torch.testing.assert_close(output(plain), expected, rtol=1e-4, atol=1e-5)
    merged = copy.deepcopy(unet)
    merge_lora(merged)
    assert not any(isinstance(one, LoraModule) for one in merged.modules())
    torch.testing.assert_close(output(merged), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rank", "least"), [(16, 4), (16, 15), (5, 1), (64, 32)])
def test_ranks_come_into_force_as_the_paper_has_it(rank: int, least: int) -> None:
    last = TimestepRanks(least, 1000).last_timesteps(rank)
    for timestep in range(1001):
        # Exact, in whole numbers: floor((T - t) / T · (R - least)) + least.
        active = (1000 - timestep) * (rank - least) // 1000 + least
        assert (timestep <= last).tolist() == [place < active for place in range(rank)], timestep
    halves = TimestepRanks(least, 1000, halves=True).last_timesteps(2 * rank)
    assert halves.tolist() == last.tolist() * 2


@pytest.mark.parametrize("kind", ["zero", "orthogonal"])
def test_each_row_has_the_ranks_of_its_own_timestep(kind: str) -> None:
    unet = small_unet()
    add_lora({"unet": unet}, options(kind, TimestepRanks(1, 1000)))
    assert depends_on_timestep(unet)
    layers, seen = learnt(unet), {}
    for name, module in layers.items():
        module.register_forward_hook(lambda one, given, found, name=name: seen.update({name: (given[0], found)}))
    output(unet)
    name = next(one for one in layers if one.endswith("attn2.to_q"))
    module, (rows, found) = layers[name], seen[name]
    # Of four ranks three are in force at 100, and the least, one, at 900.
    for row, active in ((0, 3), (1, 1)):
        scales = torch.ones(4) if module.lora_E is None else module.lora_E.detach()
        change = (module.lora_B.detach() * scales)[:, :active] @ module.lora_A.detach()[:active]
        if kind == "orthogonal":
            change = change - module.start_up[:, :active] @ module.start_down[:active]
        expected = module.base_layer(rows[row]) + 2.0 * rows[row] @ change.T
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_a_finished_schedule_is_kept_in_metadata_and_draws_the_same() -> None:
    unet = small_unet()
    again = copy.deepcopy(unet)
    add_lora({"unet": unet}, options("orthogonal", TimestepRanks(1, 1000)))
    learnt(unet)
    lora = attached_lora({"unet": unet})
    assert lora.schedule == TimestepRanks(1, 1000, halves=True)
    assert schedule_of(lora.schedule.metadata, "file") == lora.schedule
    attach_lora({"unet": again}, lora)
    torch.testing.assert_close(output(again), output(unet), rtol=0, atol=0)
    with pytest.raises(UnsupportedFile, match="T-LoRA"):
        merge_lora(again)


def test_a_plain_lora_beside_one_with_a_schedule_is_attached_too() -> None:
    unet = small_unet()
    again = copy.deepcopy(unet)
    add_lora({"unet": unet}, options("zero", TimestepRanks(1, 1000)))
    learnt(unet)
    found = attached_lora({"unet": unet})
    first, *rest = found.part("unet").items()
    mixed = LoraWeights({"unet": {first[0]: replace(first[1], schedule=None), **dict(rest)}})
    attach_lora({"unet": again}, mixed)
    assert not torch.equal(output(again), output(unet)) and math.isfinite(float(output(again).sum()))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"least": 0, "timesteps": 1000, "halves": false}',
        "{",
        '{"least": 1, "timesteps": Infinity, "halves": false}',
        '{"least": -1e999, "timesteps": 1000, "halves": false}',
        '{"least": 1, "timesteps": 1' + 400 * "0" + ', "halves": false}',
        '{"least": ' + 100_000 * "[",
    ],
    ids=["list", "none", "cut off", "endless", "below all", "huge", "nested"],
)
def test_metadata_that_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(UnsafeFile, match="no schedule of ranks"):
        schedule_of({"dreambooth_timestep_ranks": text}, "file")
