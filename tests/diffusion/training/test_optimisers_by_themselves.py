"""Optimisers that find their rate, average their weights or turn matrices: their steps, their state, their bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.adapters.attach import Trainable
from dbcli.diffusion.estimate.footprint import OPTIMISER_BYTES, optimiser_bytes, update_bytes
from dbcli.diffusion.training.muon import orthogonal
from dbcli.diffusion.training.optimiser_state import load_optimiser_tensors, optimiser_tensors, used_rate
from dbcli.diffusion.training.optimisers import Optimisation, build_optimiser, takes_muon
from dbcli.diffusion.training.state_files import read_state, result_tensors, with_averages, write_state
from dbcli.diffusion.training.trainer import Trainer
from dbcli.errors import ConfigError
from tests.diffusion.small_trainers import apart, full, learnt, lora, plain, run, trainer_for, weights

KINDS: dict[str, dict[str, Any]] = {
    "prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "schedulefree": {"optimizer": "schedulefree"},
    "muon": {"optimizer": "muon"},
}


def with_gradient(weight: nn.Parameter, step: int) -> None:
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("name", ["schedulefree", "muon"])
def test_each_learns(name: str) -> None:
    assert learnt(run(trainer_for(full(), **KINDS[name])))


@pytest.mark.parametrize("made", [full, lora], ids=["full", "lora"])
@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_was_stopped_ends_with_the_same_bits(name: str, made: Callable[[], Any], tmp_path: Path) -> None:
    settings = {**KINDS[name], "warmup_steps": 2}
    whole = trainer_for(made(), steps=6, **settings)
    run(whole)
    first = trainer_for(made(), steps=6, **settings)
    run(first, until=3)
    write_state(tmp_path, first.state())
    again = trainer_for(made(), steps=6, **settings)
    run(again, until=1)  # a run that goes back has a state of its own to be rid of
    again.load_state(read_state(tmp_path))
    run(again)
    assert_same(weights(again), weights(whole))
    assert_same(again.state().optimiser, whole.state().optimiser)
    assert_same(result_tensors(again), result_tensors(whole))
    # Prodigy's estimate and the like, whatever of them a checkpoint names.
    assert numbers(again) == numbers(whole)


def numbers(trainer: Trainer) -> list[dict[str, Any]]:
    groups = trainer.optimiser.param_groups
    return [{key: value for key, value in group.items() if key != "params"} for group in groups]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys() and expected
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_prodigy_finds_its_rate_and_reports_it() -> None:
    trainer = trainer_for(lora(), steps=110, **KINDS["prodigy"])
    steps = [trainer.step() for _ in range(trainer.loop.steps)]
    rates = [one.learning_rate for one in steps]
    # It begins at its first estimate, a millionth, and grows until the weights move.
    assert rates[0] == pytest.approx(1e-6, rel=1e-3)
    assert rates[-1] > 1000 * rates[0] and rates == sorted(rates)
    assert rates[-1] == trainer.optimiser.param_groups[0]["d"]
    assert learnt([one.loss for one in steps])


def test_prodigys_first_estimate_by_hand() -> None:
    # Equation (1) of its paper with one weight at 1, d0 = 1e-6 and gradients of 1: after the first step
    # s = d / d0 * d * g = 1e-6, the numerator is 0 (the weight has not moved), so d stays d0.
    weight = nn.Parameter(torch.ones(1))
    plan = Optimisation(learning_rate=1.0, optimizer="prodigy", weight_decay=0.0, epsilon=1e-12)
    optimiser = build_optimiser({"unet.w": weight}, plan)
    weight.grad = torch.ones(1)
    optimiser.step()
    assert used_rate(optimiser) == 1e-6
    # With bias corrections of AdamW the first step is d times the gradient's sign.
    assert 1 - weight.item() == pytest.approx(1e-6, rel=0.1)
    state = optimiser_tensors(optimiser, {id(weight): "unet.w"})
    assert state["group 0|d"].item() == 1e-6 and state["group 0|k"].item() == 1
    assert state["unet.w|s"].item() == pytest.approx(1e-6)


def test_what_prodigy_prints_does_not_reach_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    optimiser = build_optimiser({"unet.w": nn.Parameter(torch.ones(2))}, Optimisation(1.0, optimizer="prodigy"))
    assert capsys.readouterr().out == ""
    assert [group["weight_decay"] for group in optimiser.param_groups] == [1e-2]


def test_schedule_free_draws_with_the_average_and_trains_on_where_it_was() -> None:
    whole, looked_at = (trainer_for(full(), steps=6, **KINDS["schedulefree"]) for _ in range(2))
    run(whole)
    run(looked_at, until=3)
    before = weights(looked_at)
    with with_averages(looked_at):
        drawn = weights(looked_at)
    assert any(not torch.equal(drawn[key], before[key]) for key in before)
    assert_same(weights(looked_at), before)
    run(looked_at)
    assert_same(weights(looked_at), weights(whole))


def test_the_average_of_schedule_free_is_that_of_its_package() -> None:
    trainer = trainer_for(full(), steps=4, **KINDS["schedulefree"])
    run(trainer)
    averaged = {name: tensor.clone() for name, tensor in trainer.averaged()}
    state = trainer.state()
    optimiser: Any = trainer.optimiser
    optimiser.eval()
    assert_same(averaged, weights(trainer))
    # A checkpoint has the average as a run with averages of its own has them.
    assert_same(state.ema, averaged)


def test_the_average_of_schedule_free_by_hand() -> None:
    # z of four steps against gradients of 1 at a rate of 0.1, and their mean; each step of the second moment is exact.
    weight = nn.Parameter(torch.zeros(1))
    plan = Optimisation(learning_rate=0.1, optimizer="schedulefree", weight_decay=0.0, epsilon=0.0)
    optimiser = build_optimiser({"unet.w": weight}, plan)
    for _ in range(4):
        weight.grad = torch.ones(1)
        optimiser.step()
    z, x = -0.4, (-0.1 - 0.2 - 0.3 - 0.4) / 4
    assert optimiser.state[weight]["z"].item() == pytest.approx(z)
    # y = 0.1 z + 0.9 x, at which the gradient is taken.
    assert weight.item() == pytest.approx(0.1 * z + 0.9 * x)
    optimiser.eval()  # type: ignore[attr-defined]
    assert weight.item() == pytest.approx(x)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_takes_the_steps_of_its_package(decay: float) -> None:
    from schedulefree import AdamWScheduleFree

    shapes = [(3, 5), (4, 2, 3, 3), (7,)]
    plan = Optimisation(1e-2, optimizer="schedulefree", weight_decay=decay)
    sides = [[nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2)]
    made = build_optimiser({f"unet.{number}": one for number, one in enumerate(sides[0])}, plan)
    package = AdamWScheduleFree(sides[1], lr=1e-2, weight_decay=decay, foreach=False)
    package.train()
    # The first step at a rate of 0, as with a warm-up, the others at rates that rise and fall; one weight skips a step.
    for step, rate in enumerate([0.0, 5e-3, 1e-2, 1e-2, 2e-3] * 4):
        for weights_of, optimiser in zip(sides, (made, package), strict=True):
            for number, weight in enumerate(weights_of):
                with_gradient(weight, 100 * step + number)
            if step == 3:
                weights_of[0].grad = None
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
    for ours, theirs in zip(*sides, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        for slot in ("z", "exp_avg_sq"):
            torch.testing.assert_close(made.state[ours][slot], package.state[theirs][slot], rtol=1e-5, atol=1e-6)
    kept = [
        {key: group[key] for key in ("k", "weight_sum", "lr_max")}
        for group in (*made.param_groups, *package.param_groups)
    ]
    assert kept[0] == kept[1]


def test_the_result_of_schedule_free_is_its_average() -> None:
    trainer = trainer_for(full(), steps=4, **KINDS["schedulefree"])
    run(trainer)
    expected = result_tensors(trainer)
    trainer.use_averages()
    trainer.forget_optimiser()
    assert_same({name: one.float() for name, one in weights(trainer).items()}, expected)


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw() -> None:
    named = {
        "unet.attention.weight": nn.Parameter(torch.zeros(8, 4)),
        "unet.convolution.weight": nn.Parameter(torch.zeros(4, 4, 3, 3)),
        "unet.norm.bias": nn.Parameter(torch.zeros(4)),
        "text_encoder.embeddings.token_embedding.weight": nn.Parameter(torch.zeros(6, 4)),
    }
    plan = Optimisation(1e-2, optimizer="muon", weight_decay=0.0)
    optimiser = build_optimiser(named, plan)
    for number, weight in enumerate(named.values()):
        with_gradient(weight, number)
    optimiser.step()
    assert [takes_muon(*one) for one in named.items()] == [True, False, False, False]
    matrix, *others = named.values()
    # Orthonormal columns, to the band of its five iterations, and as long as AdamW's: 0.2 sqrt(8) times the rate.
    singular = torch.linalg.svdvals(matrix.detach()) / (1e-2 * 0.2 * 8**0.5)
    assert bool(((singular > 0.5) & (singular < 1.5)).all())
    # AdamW's first step is the rate times the gradient's sign.
    assert all(torch.allclose(one.abs(), torch.full_like(one, 1e-2), rtol=1e-3) for one in others)


@pytest.mark.parametrize("shape", [(8, 4), (4, 8), (6, 6)])
@pytest.mark.parametrize("computes_in_bf16", [True, False])
def test_muon_in_float32_steps_as_torchs_own_to_bfloat16s_rounding(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], computes_in_bf16: bool
) -> None:
    monkeypatch.setattr("dbcli.diffusion.training.optimisers.computes_in_bf16", lambda device: computes_in_bf16)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    chosen = build_optimiser({"unet.weight": ours}, Optimisation(1e-2, optimizer="muon", weight_decay=0.1))
    torchs = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        for weight in (ours, theirs):
            with_gradient(weight, step)
        chosen.step()
        torchs.step()
    moved = (theirs - start).detach().abs().max().item()
    apart_by = (ours - theirs).detach().abs().max().item()
    assert apart_by == 0 if computes_in_bf16 else 0 < apart_by < 0.02 * moved


def test_muon_in_float32_is_exact_to_float32s_rounding() -> None:
    matrix = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    coefficients = (3.4445, -4.7750, 2.0315)
    # The same polynomial of the singular values, by their decomposition in double precision.
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / matrix.double().norm()
    for _ in range(5):
        values = coefficients[0] * values + coefficients[1] * values**3 + coefficients[2] * values**5
    expected = left @ torch.diag(values) @ right
    for turned, found in ((matrix, expected), (matrix.T, expected.T)):
        assert torch.allclose(orthogonal(turned, coefficients, 5, 1e-7).double(), found, atol=1e-5)


@pytest.mark.parametrize("how", [{"fused_backward": True}, {"precision": "bf16", "stochastic_rounding": True}])
def test_muon_takes_weights_one_by_one(how: dict[str, Any]) -> None:
    if "fused_backward" in how:
        assert_same(taught(how), taught({}))
    else:
        curve = run(trainer_for(full(torch.bfloat16), steps=10, **KINDS["muon"], **how))
        assert apart(plain_muon(), curve) < 0.02


def taught(how: dict[str, Any]) -> dict[str, torch.Tensor]:
    trainer = trainer_for(full(), steps=4, **KINDS["muon"], **how)
    run(trainer)
    return weights(trainer)


def plain_muon() -> list[float]:
    return run(trainer_for(full(), steps=10, **KINDS["muon"]))


def test_without_its_package_prodigy_is_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(ConfigError, match="prodigy, but prodigyopt is not installed") as fault:
        trainer_for(full(), **KINDS["prodigy"])
    assert "install prodigyopt" in str(fault.value.hint)


@pytest.mark.parametrize("made", [full, lora], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["adamw", "adamw16bit", "adafactor", *KINDS])
def test_the_estimate_knows_the_bytes_of_every_state(name: str, made: Callable[[], tuple[Any, Trainable]]) -> None:
    model = made()
    trainer = trainer_for(model, steps=2, **KINDS.get(name, {"optimizer": name}))
    run(trainer)
    held = sum(one.nbytes for one in state_tensors(trainer))
    expected = optimiser_bytes(name, model[1])
    assert held == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("tucker", [False, True], ids=["", "tucker"])
@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_the_estimate_knows_which_factors_begin_at_zero(kind: str, tucker: bool) -> None:
    model = lora(kind=kind, tucker=tucker, rank=2, factor=4, targets=["to_q", "conv1"])
    trainer = trainer_for(model, steps=2, **KINDS["prodigy"])
    run(trainer)
    held = sum(one.nbytes for one in state_tensors(trainer))
    assert held == pytest.approx(optimiser_bytes("prodigy", model[1]), rel=0.01)


def state_tensors(trainer: Trainer) -> list[torch.Tensor]:
    slots = [one for state in trainer.optimiser.state.values() for one in state.values()]
    return [one for one in slots if isinstance(one, torch.Tensor)]


def test_every_optimiser_states_its_bytes() -> None:
    from typing import get_args

    from dbcli.diffusion.training.optimisers import OPTIMISERS
    from dbcli.project.settings.profile_settings import TrainSettings

    known = set(get_args(TrainSettings.model_fields["optimizer"].annotation))
    assert known == set(OPTIMISERS) == set(OPTIMISER_BYTES)


# Prodigy reads sums on the way, which fake tensors have none of.
@pytest.mark.parametrize(("name", "in_bf16"), [("schedulefree", False), ("muon", False), ("muon", True)])
def test_an_update_takes_what_the_estimate_says(monkeypatch: pytest.MonkeyPatch, name: str, in_bf16: bool) -> None:
    for room in ("training.optimisers", "estimate.footprint"):
        monkeypatch.setattr(f"dbcli.diffusion.{room}.computes_in_bf16", lambda device: in_bf16)
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dbcli.diffusion.estimate.cost import fake_run

    with FakeTensorMode():
        weight = nn.Parameter(torch.empty(512, 384))
        plan = Optimisation(**{"learning_rate": 1e-3, **KINDS[name]})
        optimiser = build_optimiser({"unet.w": weight}, plan)
        for _ in range(2):
            weight.grad = torch.empty_like(weight)
            cost = fake_run(optimiser.step)
    expected = update_bytes(name, weight.numel(), rounds=False, device=torch.device("cpu"))
    assert cost.peak_bytes == pytest.approx(expected, rel=0.1, abs=64)


def test_a_state_of_another_optimiser_begins_anew() -> None:
    trainer = trainer_for(lora(), **KINDS["prodigy"])
    run(trainer, until=5)
    assert trainer.optimiser.param_groups[0]["k"] == 5
    load_optimiser_tensors(trainer.optimiser, trainer.trainable.tensors, {})
    group = trainer.optimiser.param_groups[0]
    assert (group["k"], group["d"], group["d_numerator"]) == (0, 1e-6, 0.0)
    assert not trainer.optimiser.state


def test_nothing_is_averaged_by_the_others() -> None:
    trainer = trainer_for(full(), steps=1)
    run(trainer)
    assert not dict(trainer.averaged()) and not trainer.state().ema
    assert plain()


def test_a_weight_in_columns_goes_on_as_it_would_have_when_its_state_comes_back_in_rows() -> None:
    settings = Optimisation(optimizer="adamw", learning_rate=0.1)

    def begun() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3).T)
        assert not weight.is_contiguous()
        return weight, build_optimiser({"w": weight}, settings)

    whole, optimiser = begun()
    for step in (1, 2):
        if step == 2:
            # As a file has it.
            saved = optimiser_tensors(optimiser, {id(whole): "w"})
            kept = {name: one.clone().contiguous() for name, one in saved.items()}
            again, other = begun()
            again.data.copy_(whole.detach())
            load_optimiser_tensors(other, {"w": again}, kept)
        for weight in (whole, again) if step == 2 else (whole,):
            weight.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(step)).T.contiguous().T
        optimiser.step()
    other.step()
    assert torch.equal(whole, again)


@pytest.mark.parametrize("settings", [KINDS["schedulefree"], {}], ids=["schedule-free", "plain"])
def test_a_model_that_could_not_take_its_averages_is_as_it_was(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_for(lora(), steps=3, **settings)
    run(trainer)
    before = weights(trainer)

    def no_room() -> None:
        with torch.no_grad():
            next(iter(trainer.trainable.tensors.values())).add_(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "use_averages", no_room if settings else lambda: None)
    with pytest.raises(torch.OutOfMemoryError), with_averages(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert_same(weights(trainer), before)
    assert all(module.training for module in trainer.trainable.modules)


def test_a_rank_that_never_had_a_row_takes_fp16s_scaled_steps_as_well() -> None:
    trainer = trainer_for(lora(), precision="fp16", gradient_clip=1.0)
    # The sum over all ranks, to which this one has added nothing.
    for parameter in trainer.parameters:
        parameter.grad = torch.full_like(parameter, trainer.scaler.get_scale())
    before = weights(trainer)
    trainer._apply_gradients()
    assert all(not torch.equal(one, before[name]) for name, one in weights(trainer).items())
