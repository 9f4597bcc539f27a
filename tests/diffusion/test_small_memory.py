"""Settings that save memory: each keeps the result, in full or within a band that is stated."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.adapters import Trainable, add_lora, make_full
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.optimisers import Optimisation, build_optimiser
from dbcli.diffusion.rounding import stochastically_rounded
from dbcli.diffusion.rows import Material, RowPlan
from dbcli.diffusion.samplers import alphas_of
from dbcli.diffusion.small_base import NF4_LEVELS, Packed, SmallConvolution, SmallLinear, shrink
from dbcli.diffusion.state_files import read_state, write_state
from dbcli.diffusion.trainer import Objective, Schedule, Trainer, train
from dbcli.errors import ConfigError

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
STEPS, RATE = 20, 1e-3
Curve = list[float]


@cache
def _small_unet() -> Any:
    """A UNet with attention, convolutions and both ways down and up, of a few hundred thousand weights."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )


class FixedPrompts:
    """Conditioning that does not learn."""

    def rows(self, indices: Any) -> torch.Tensor:
        return torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(2))[list(indices)]


def full(dtype: torch.dtype = torch.float32, checkpointing: bool = False) -> tuple[Any, Trainable]:
    unet = copy.deepcopy(_small_unet())
    if checkpointing:
        unet.enable_gradient_checkpointing()
    return unet, make_full(unet, nn.Identity(), train_text=False, dtype=dtype)


def lora(kept: str | None = None, **how: Any) -> tuple[Any, Trainable]:
    unet = copy.deepcopy(_small_unet())
    if kept is not None:
        shrink(unet, kept)
    settings = {"train_text": False, "rank": 4, "alpha": 4.0, "targets": ["to_q", "to_v"], "text_targets": ["q_proj"]}
    return unet, add_lora(unet, nn.Identity(), **{**settings, **how})


def trainer_for(model: tuple[Any, Trainable], *, precision: str = "fp32", steps: int = STEPS, **plan: Any) -> Trainer:
    mean = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    return Trainer(
        model[0],
        model[1],
        Posterior(mean, torch.full_like(mean, 0.1)),
        FixedPrompts(),
        RowPlan([Material([[0], [1]], [0, 0], (2, 3), 1)], batch_size=1, seed=0),
        Objective("epsilon", alphas_of(SCHEDULER)),
        Optimisation(**{"learning_rate": RATE, "gradient_clip": 0.0, **plan}),
        Schedule(steps=steps, precision=precision),
    )


def run(trainer: Trainer, until: int | None = None) -> Curve:
    losses: Curve = []
    train(
        trainer,
        on_step=lambda result: losses.append(result.loss),
        after_step=lambda step: None,
        should_stop=lambda: until is not None and trainer.done >= until,
    )
    return losses


@cache
def plain(optimizer: str = "adamw") -> tuple[float, ...]:
    return tuple(run(trainer_for(full(), optimizer=optimizer)))


@cache
def plain_lora() -> tuple[float, ...]:
    return tuple(run(trainer_for(lora())))


def apart(one: Any, other: Any) -> float:
    """The largest difference between two loss curves, as a share of the first's mean."""
    differences = [abs(a - b) for a, b in zip(one, other, strict=True)]
    return max(differences) / (sum(one) / len(one))


def learnt(curve: Any) -> bool:
    return sum(curve[-5:]) < 0.98 * sum(curve[:5])


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.trainable.tensors.items()}


# --- the optimiser's step inside the backward pass


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_fused_into_the_backward_pass_the_loss_curve_is_the_same(optimizer: str) -> None:
    curve = run(trainer_for(full(), optimizer=optimizer, fused_backward=True))
    assert apart(plain(optimizer), curve) < 1e-4
    assert learnt(curve)


def test_gradients_never_all_live_at_once() -> None:
    trainer = trainer_for(full(), fused_backward=True)
    highest = 0

    def look(_: torch.Tensor) -> None:
        nonlocal highest
        highest = max(highest, sum(one.grad.nbytes for one in trainer.parameters if one.grad is not None))

    for parameter in trainer.parameters:
        parameter.register_post_accumulate_grad_hook(look)
        parameter.register_hook(lambda gradient: look(gradient))
    trainer.loss(0).total.backward()
    assert all(one.grad is None for one in trainer.parameters)
    assert highest <= max(one.nbytes for one in trainer.parameters)


def test_recomputed_activations_and_the_fused_step_go_together() -> None:
    curve = run(trainer_for(full(checkpointing=True), fused_backward=True))
    assert apart(plain(), curve) < 1e-4


# --- fewer bits


def test_rounding_by_chance_is_right_in_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    lower, upper = 1.0, 1.0 + 2**-7  # neighbours in bfloat16
    for share in (0.0, 0.1, 0.5, 0.9):
        for sign in (1.0, -1.0):
            values = torch.full((100_000,), sign * (lower + share * (upper - lower)))
            rounded = stochastically_rounded(values, generator).float()
            assert set(rounded.abs().unique().tolist()) <= {lower, upper}
            went_up = (rounded.abs() == upper).float().mean().item()
            # Five standard deviations of a share of 100,000 draws, at most 0.008.
            assert went_up == pytest.approx(share, abs=0.008)


def test_what_bfloat16_has_stays_what_it_is() -> None:
    exact = torch.tensor([0.0, -0.0, 1.5, -3.0, 2.0**-120, float("inf"), float("-inf"), float("nan")])
    rounded = stochastically_rounded(exact, torch.Generator().manual_seed(1))
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0, equal_nan=True)


def test_small_steps_add_up_that_plain_bfloat16_loses() -> None:
    # 200 steps of 1e-5 on weights of 1: in all a quarter of bfloat16's last bit at 1.
    weight = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    plan = Optimisation(learning_rate=1e-5, weight_decay=0.0, stochastic_rounding=True)
    optimiser = build_optimiser({"unet.w": weight}, plan)
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    assert weight.dtype == torch.bfloat16
    assert 1 - weight.float().mean().item() == pytest.approx(200e-5, rel=0.1)
    lost = torch.ones(4, dtype=torch.bfloat16)
    for _ in range(200):
        lost -= 1e-5
    assert (lost == 1).all()


def test_weights_in_bfloat16_learn_like_weights_in_float32() -> None:
    model = full(torch.bfloat16)
    curve = run(trainer_for(model, precision="bf16", stochastic_rounding=True))
    assert {one.dtype for one in model[1].tensors.values()} == {torch.bfloat16}
    assert apart(plain(), curve) < 0.02
    assert learnt(curve)


def test_the_chance_is_the_runs_own_and_the_same_fused_or_not() -> None:
    results = []
    for fused, seed in ((False, 0), (True, 0), (False, 1)):
        settings = {"stochastic_rounding": True, "fused_backward": fused, "seed": seed}
        trainer = trainer_for(full(torch.bfloat16), precision="bf16", steps=3, **settings)
        torch.manual_seed(int(fused))  # the global state is nobody's business
        run(trainer)
        results.append(weights(trainer))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert any(not torch.equal(results[0][name], results[2][name]) for name in results[0])


def test_adafactor_keeps_far_less_than_adamw_and_learns() -> None:
    sizes = {}
    for optimizer in ("adamw", "adafactor"):
        trainer = trainer_for(full(), optimizer=optimizer, steps=1)
        run(trainer)
        sizes[optimizer] = sum(one.nbytes for one in trainer.state().optimiser.values())
    assert sizes["adafactor"] < 0.45 * sizes["adamw"]
    assert learnt(plain("adafactor"))


def test_eight_bit_adamw_follows_adamw() -> None:
    pytest.importorskip("bitsandbytes")
    trainer = trainer_for(full(), optimizer="adamw8bit")
    curve = run(trainer)
    assert apart(plain(), curve) < 0.005
    assert torch.uint8 in {one.dtype for one in trainer.state().optimiser.values()}


def test_without_bitsandbytes_eight_bits_are_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="bitsandbytes is not installed"):
        trainer_for(full(), optimizer="adamw8bit")


SMALL_RUNS: dict[str, tuple[Callable[[], tuple[Any, Trainable]], dict[str, Any]]] = {
    "fused": (full, {"fused_backward": True}),
    "adafactor": (full, {"optimizer": "adafactor"}),
    "rounded adafactor, fused": (
        lambda: full(torch.bfloat16),
        {"precision": "bf16", "stochastic_rounding": True, "fused_backward": True, "optimizer": "adafactor"},
    ),
    "adamw8bit": (full, {"optimizer": "adamw8bit"}),
    "nf4": (lambda: lora("nf4"), {}),
}


@pytest.mark.parametrize("name", SMALL_RUNS)
def test_a_run_that_was_stopped_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    make, settings = SMALL_RUNS[name]
    if "8bit" in name:
        pytest.importorskip("bitsandbytes")
    whole = trainer_for(make(), steps=4, **settings)
    run(whole)
    first = trainer_for(make(), steps=4, **settings)
    run(first, until=2)
    write_state(tmp_path, first.state())
    again = trainer_for(make(), steps=4, **settings)
    again.load_state(read_state(tmp_path))
    run(again)
    ended, expected = weights(again), weights(whole)
    assert all(torch.equal(ended[key], expected[key]) for key in expected)
    state, expected_state = again.state().optimiser, whole.state().optimiser
    assert state.keys() == expected_state.keys()
    assert all(torch.equal(state[key], expected_state[key]) for key in state)


# --- recomputed activations


def saved_bytes(trainer: Trainer) -> int:
    """What one forward pass keeps for the backward pass."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.loss(0)
    return kept


def test_recomputed_activations_change_nothing_but_memory() -> None:
    curve = run(trainer_for(full(checkpointing=True)))
    assert apart(plain(), curve) < 1e-6
    assert saved_bytes(trainer_for(full(checkpointing=True))) < 0.5 * saved_bytes(trainer_for(full()))


# --- a frozen base in few bits


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
    assert held < size * sum(one.nbytes for one in _small_unet().parameters())
    curve = run(trainer_for(model, precision=precision))
    assert apart(plain_lora(), curve) < band
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model[0].named_buffers())


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
