"""Weights and optimiser states in fewer bits: the result stays, in full or within a band that is stated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.adapters.attach import Trainable
from dbcli.diffusion.training import weight_by_weight
from dbcli.diffusion.training.optimisers import Optimisation, build_optimiser
from dbcli.diffusion.training.state_files import read_state, write_state
from dbcli.diffusion.training.weight_by_weight import round_into, stochastically_rounded
from dbcli.errors import ConfigError
from tests.diffusion.small_trainers import (
    apart,
    full,
    learnt,
    lora,
    plain,
    run,
    trainer_for,
    weights,
)

Rounding = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def at_once(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return stochastically_rounded(values, generator)


def in_pieces(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    kept = torch.empty_like(values, dtype=torch.bfloat16)
    round_into(kept, values, generator)
    return kept


WAYS = pytest.mark.parametrize("rounded_by", [at_once, in_pieces])


@WAYS
def test_rounding_by_chance_is_right_in_the_mean(rounded_by: Rounding) -> None:
    generator = torch.Generator().manual_seed(0)
    lower, upper = 1.0, 1.0 + 2**-7  # neighbours in bfloat16
    for share in (0.0, 0.1, 0.5, 0.9):
        for sign in (1.0, -1.0):
            values = torch.full((100_000,), sign * (lower + share * (upper - lower)))
            rounded = rounded_by(values, generator).float()
            assert set(rounded.abs().unique().tolist()) <= {lower, upper}
            went_up = rounded.abs() == upper
            # Five standard deviations of a share of 100,000 draws, at most 0.008; of its quarters twice that.
            assert went_up.float().mean().item() == pytest.approx(share, abs=0.008)
            # Four random numbers may come from one draw: each is as likely to round up as the others.
            for quarter in went_up.float().view(-1, 4).mean(0).tolist():
                assert quarter == pytest.approx(share, abs=0.016)


@WAYS
def test_rounding_takes_all_sixteen_bits(rounded_by: Rounding) -> None:
    # One part in 65,536 above 1 is rounded up about 16 times in a million, the same below the next number not.
    up = torch.full((1_000_000,), 1.0 + 2**-23)
    assert 0 < (rounded_by(up, torch.Generator().manual_seed(2)).float() > 1).sum().item() < 60
    down = torch.full((1_000_000,), 1.0 + 2**-7 - 2**-23)
    assert 0 < (rounded_by(down, torch.Generator().manual_seed(3)).float() == 1).sum().item() < 60


@WAYS
def test_what_bfloat16_has_stays_what_it_is(rounded_by: Rounding) -> None:
    # The last of them, with every bit of its fraction set, is what no number added to may become.
    odd = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    exact = torch.cat([torch.tensor([0.0, -0.0, 1.5, -3.0, 2.0**-120, float("inf"), float("-inf"), float("nan")]), odd])
    for values in (exact, exact[:5], exact[:7]):
        rounded = rounded_by(values, torch.Generator().manual_seed(1))
        torch.testing.assert_close(rounded.float(), values, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(rounded.signbit()[:5], values.signbit()[:5])


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


def test_adamw_with_halved_moments_follows_adamw_in_half_its_memory() -> None:
    states = {}
    for optimizer in ("adamw", "adamw16bit"):
        trainer = trainer_for(full(), optimizer=optimizer)
        curve = run(trainer)
        states[optimizer] = {key: one for key, one in trainer.state().optimiser.items() if "|exp_avg" in key}
    assert apart(plain(), curve) < 0.005 and learnt(curve)
    assert {one.dtype for one in states["adamw16bit"].values()} == {torch.bfloat16}
    assert states["adamw16bit"].keys() == states["adamw"].keys()
    assert 2 * sum(one.nbytes for one in states["adamw16bit"].values()) == sum(
        one.nbytes for one in states["adamw"].values()
    )


def test_a_second_moment_in_bfloat16_does_not_stand_still() -> None:
    # From 0 towards 1 in steps of a thousandth of what is left: after 1,000 of them 1 - 0.999^1000 = 0.632.
    weight = nn.Parameter(torch.zeros(4096))
    optimiser = build_optimiser({"unet.w": weight}, Optimisation(learning_rate=0.0, optimizer="adamw16bit"))
    for _ in range(1000):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    assert optimiser.state[weight]["exp_avg_sq"].float().mean().item() == pytest.approx(0.632, abs=0.005)
    plain = torch.tensor(0.0, dtype=torch.bfloat16)
    for _ in range(1000):
        plain = (0.999 * plain.float() + 0.001).to(torch.bfloat16)
    assert plain.item() < 0.5


def test_what_is_rounded_piece_by_piece_is_as_if_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for at_once in (8, 1 << 20):
        monkeypatch.setattr(weight_by_weight, "ROUNDED_AT_ONCE", at_once)
        weight = nn.Parameter(torch.linspace(0.1, 1, 1000).view(10, 100).to(torch.bfloat16))
        plan = Optimisation(learning_rate=1e-4, stochastic_rounding=True)
        optimiser = build_optimiser({"unet.w": weight}, plan)
        for _ in range(3):
            weight.grad = torch.ones_like(weight)
            optimiser.step()
        results.append(weight.detach().clone())
    assert torch.equal(*results)


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
    "adamw16bit": (full, {"optimizer": "adamw16bit"}),
    "rounded adamw16bit, fused": (
        lambda: full(torch.bfloat16),
        {"precision": "bf16", "stochastic_rounding": True, "fused_backward": True, "optimizer": "adamw16bit"},
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
