"""The training loop on a small random base: what must not change, what must come back exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dbcli.diffusion.adapters.attach import (
    LoraOptions,
    Trainable,
    add_lora,
    attach_lora,
    make_full,
)
from dbcli.diffusion.conditioning import FrozenPrompts, LearningPrompts
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.formats.lora import attached_lora
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.state_files import read_state, write_state
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from dbcli.errors import TrainingDiverged
from tests.diffusion import tiny_models
from tests.diffusion.small_trainers import run

PROMPTS = ["a sks dog", "a dog"]
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@pytest.fixture
def parts() -> dict[str, Any]:
    return {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}


def subject_images(count: int = 6) -> Posterior:
    generator = torch.Generator().manual_seed(5)
    return Posterior(torch.randn(count, 4, 8, 8, generator=generator), torch.full((count, 4, 8, 8), 0.1))


def opened(
    parts: dict[str, Any], method: str = "full", *, text: bool = False, rank: int = 2, alpha: float = 4.0
) -> Trainable:
    if method == "full":
        return make_full(tiny_models.tunable(parts), train_text=text)
    options = LoraOptions(rank, alpha, ["to_q", "to_v"], ["q_proj", "v_proj"], train_text=text)
    return add_lora(tiny_models.tunable(parts), options)


def trainer_for(
    parts: dict[str, Any],
    trainable: Trainable,
    *,
    rate: float = 1e-3,
    prior_weight: float = 1.0,
    images: Posterior | None = None,
    class_images: tuple[int, ...] = (3, 4, 5),
    steps: int = 4,
    batch_size: int = 1,
    **schedule: Any,
) -> Trainer:
    kind = LearningPrompts if trainable.trains_text else FrozenPrompts
    prompts = kind(tiny_models.base_of(parts), PROMPTS, torch.device("cpu"))
    material = SubjectData([[0], [1], [2]], [SentenceData([0] * 3, [0] * 3, class_images, 1)])
    return Trainer(
        tiny_models.base_of(parts).denoiser,
        trainable,
        StepInputs(images or subject_images(), prompts, BatchSampler([material], batch_size=batch_size, seed=0)),
        objective=Objective(Diffusion.of(SCHEDULER), prior_weight=prior_weight),
        optimisation=Optimisation(learning_rate=rate),
        loop=LoopSettings(steps=steps, **schedule),
    )


def weights(trainable: Trainable) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainable.tensors.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("text", [False, True])
def test_at_learning_rate_zero_not_one_bit_moves(parts: dict[str, Any], text: bool) -> None:
    trainable = opened(parts, text=text)
    before = weights(trainable)
    run(trainer_for(parts, trainable, rate=0.0, steps=2))
    assert same(before, weights(trainable))


def test_training_moves_the_weights_it_opened_and_no_others(parts: dict[str, Any]) -> None:
    trainable = opened(parts)
    before, text_before = weights(trainable), copy.deepcopy(parts["text_encoder"].state_dict())
    run(trainer_for(parts, trainable, steps=1))
    assert not same(before, weights(trainable))
    assert same(text_before, parts["text_encoder"].state_dict())


def test_with_prior_weight_zero_the_class_images_do_not_matter(parts: dict[str, Any]) -> None:
    results = []
    for shift in (0.0, 3.0):
        fresh = {name: copy.deepcopy(network) for name, network in parts.items()}
        images = subject_images()
        images.mean[3:] += shift
        trainable = opened(fresh)
        run(trainer_for(fresh, trainable, prior_weight=0.0, images=images, steps=2))
        results.append(weights(trainable))
    assert same(*results)


def test_with_a_prior_weight_they_do(parts: dict[str, Any]) -> None:
    results = []
    for shift in (0.0, 3.0):
        fresh = {name: copy.deepcopy(network) for name, network in parts.items()}
        images = subject_images()
        images.mean[3:] += shift
        trainable = opened(fresh)
        run(trainer_for(fresh, trainable, images=images, steps=1))
        results.append(weights(trainable))
    assert not same(*results)


def predicted(parts: dict[str, Any]) -> torch.Tensor:
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    embedded = parts["text_encoder"](
        tiny_models.tokenizer()(PROMPTS[:1], padding="max_length", return_tensors="pt").input_ids
    )
    with torch.no_grad():
        return parts["unet"](noisy, 500, embedded.last_hidden_state).sample


def test_a_lora_starts_as_the_base(parts: dict[str, Any]) -> None:
    before = predicted(parts)
    opened(parts, "lora", text=True)
    parts["unet"].eval()
    assert torch.equal(before, predicted(parts))


def test_a_trained_lora_draws_the_same_after_it_is_taken_out_and_attached(parts: dict[str, Any]) -> None:
    fresh = {name: copy.deepcopy(network) for name, network in parts.items()}
    trainable = opened(parts, "lora", text=True, rank=2, alpha=5.0)
    run(trainer_for(parts, trainable, rate=1e-2, steps=2))
    lora = attached_lora(tiny_models.tunable(parts))
    assert {(layer.rank, layer.alpha) for layer in lora.layers} == {(2, 5.0)}
    attach_lora(tiny_models.tunable(fresh), lora)
    parts["unet"].eval()
    parts["text_encoder"].eval()
    assert torch.equal(predicted(parts), predicted(fresh))


CASES = {
    "plain": {},
    "batch of two, two micro-batches": {"batch_size": 2, "accumulation": 2},
    "moving average": {"ema": 0.9},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("method", "text"), [("full", False), ("lora", True)])
def test_a_run_stopped_and_resumed_ends_bit_equal(
    parts: dict[str, Any], tmp_path: Path, settings: dict[str, Any], method: str, text: bool
) -> None:
    whole_parts = {name: copy.deepcopy(network) for name, network in parts.items()}
    whole = trainer_for(whole_parts, opened(whole_parts, method, text=text), **settings)
    whole_losses = run(whole)

    first_parts = {name: copy.deepcopy(network) for name, network in parts.items()}
    first = trainer_for(first_parts, opened(first_parts, method, text=text), **settings)
    losses = run(first, until=2)
    write_state(tmp_path, first.state())

    second = trainer_for(parts, opened(parts, method, text=text), **settings)
    second.load_state(read_state(tmp_path))
    losses += run(second)
    assert losses == whole_losses
    assert same(whole.state().weights, second.state().weights)
    assert same(whole.state().optimiser, second.state().optimiser)
    assert same(whole.state().ema, second.state().ema)


def test_what_a_text_encoders_attention_leaves_out_follows_from_the_step(parts: dict[str, Any]) -> None:
    ended = []
    for share in (0.5, 0.5, 0.0):
        own = {name: copy.deepcopy(network) for name, network in parts.items()}
        for layer in own["text_encoder"].encoder.layers:
            # As the configuration has it: no layer of dropout, but a number.
            assert layer.self_attn.dropout == 0.0
            layer.self_attn.dropout = share
        trainable = opened(own, text=True)
        run(trainer_for(own, trainable, steps=2))
        ended.append(weights(trainable))
        torch.rand(1)  # whatever else the program draws meanwhile
    assert same(ended[0], ended[1]) and not same(ended[1], ended[2])


def test_micro_batches_are_dealt_the_rows_of_one_larger_batch(parts: dict[str, Any]) -> None:
    two = trainer_for(parts, opened(parts), accumulation=2, steps=1)
    one = BatchSampler(two.inputs.batches.subjects, batch_size=2, seed=0)
    assert [row for micro in (0, 1) for row in two.inputs.batches.subject_rows(micro)] == one.subject_rows(0)


def test_the_moving_average_is_the_result_when_there_is_one(parts: dict[str, Any]) -> None:
    trainable = opened(parts)
    trainer = trainer_for(parts, trainable, ema=0.5, steps=2)
    run(trainer)
    averages = {name: value.clone() for name, value in trainer.averages.items()}
    assert not same(averages, weights(trainable))
    trainer.use_averages()
    assert same(averages, weights(trainable))


def test_a_loss_that_is_not_finite_is_raised_and_such_weights_are_no_state(parts: dict[str, Any]) -> None:
    images = subject_images()
    images.mean[0] = float("nan")
    images.mean[1] = float("nan")
    images.mean[2] = float("nan")
    trainer = trainer_for(parts, opened(parts), images=images)
    with pytest.raises(TrainingDiverged, match="step 1"):
        trainer.step()
    with pytest.raises(TrainingDiverged, match="finite"):
        trainer.state()


def test_a_finished_lesson_lowers_the_loss_on_what_was_taught(parts: dict[str, Any]) -> None:
    trainer = trainer_for(parts, opened(parts), rate=2e-3, steps=30, class_images=())
    before = sum(trainer.loss(step).total.item() for step in range(6))
    run(trainer)
    assert sum(trainer.loss(step).total.item() for step in range(6)) < before
