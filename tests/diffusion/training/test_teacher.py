"""The frozen base as the teacher of its class: who agrees with it is not moved, and what is stored is what it says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dbcli.diffusion.adapters.attach import LoraOptions, Trainable, add_lora, make_full
from dbcli.diffusion.conditioning import FrozenPrompts, LearningPrompts
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, attached_lora
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.training import losses
from dbcli.diffusion.training.batches import BatchSampler, Row, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.teacher import (
    AdapterOff,
    Stored,
    StoredTeacher,
    Teacher,
    draw_of,
    predict,
    read_predictions,
    write_predictions,
)
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from tests.diffusion import tiny_models

PROMPTS = ["a sks dog", "a dog"]
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PROCESS = Diffusion.of(SCHEDULER)
DRAWS, CLASS = 2, (2, 3, 4)
DEVICE = torch.device("cpu")


@pytest.fixture
def parts() -> dict[str, Any]:
    return {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}


def subject_images() -> Posterior:
    generator = torch.Generator().manual_seed(5)
    return Posterior(torch.randn(5, 4, 8, 8, generator=generator), torch.full((5, 4, 8, 8), 0.1))


def frozen(parts: dict[str, Any]) -> FrozenPrompts:
    return FrozenPrompts(tiny_models.base_of(parts), PROMPTS, DEVICE)


def stored(parts: dict[str, Any], batch_size: int = 3) -> Stored:
    images = subject_images()
    own = Posterior(images.mean[list(CLASS)], images.deviation[list(CLASS)])
    denoiser, prompt = tiny_models.base_of(parts).denoiser, frozen(parts).rows([1])
    how = {"seed": 7, "process": PROCESS, "batch_size": batch_size}
    return Stored(torch.stack([predict(denoiser, own, prompt, number=k, **how) for k in range(DRAWS)]), 7)


def stored_teacher(parts: dict[str, Any]) -> StoredTeacher:
    found = stored(parts)
    return StoredTeacher({(0, image, 1): (found, index, 0) for index, image in enumerate(CLASS)}, PROCESS)


def trainer_for(
    parts: dict[str, Any],
    trainable: Trainable,
    teacher: Teacher | None,
    *,
    subject_counts: float = 0.0,
    rate: float = 1e-3,
    **settings: Any,
) -> Trainer:
    kind = LearningPrompts if trainable.trains_text else FrozenPrompts
    weights = torch.ones(5, 1, 8, 8)
    weights[:2] = subject_counts
    return Trainer(
        tiny_models.base_of(parts).denoiser,
        trainable,
        StepInputs(
            subject_images(),
            kind(tiny_models.base_of(parts), PROMPTS, DEVICE),
            BatchSampler([SubjectData([[0], [1]], [SentenceData([0, 0], [0, 0], CLASS, 1)])], batch_size=2, seed=0),
            weights,
            teacher,
        ),
        objective=Objective(PROCESS),
        optimisation=Optimisation(learning_rate=rate, weight_decay=0.0),
        loop=LoopSettings(steps=9, **settings),
    )


def opened(parts: dict[str, Any], method: str, *, text: bool = True) -> Trainable:
    if method == "full":
        return make_full(tiny_models.tunable(parts), train_text=text)
    options = LoraOptions(2, 4.0, ["to_q", "to_v"], ["q_proj"], dropout=0.5, train_text=text)
    return add_lora(tiny_models.tunable(parts), options)


def teacher_for(parts: dict[str, Any], method: str) -> Teacher:
    return AdapterOff(tiny_models.base_of(parts).denoiser, frozen(parts)) if method == "lora" else stored_teacher(parts)


def weights(trainable: Trainable) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainable.tensors.items()}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_without_a_subject_the_teacher_keeps_the_model_where_the_base_is(parts: dict[str, Any], method: str) -> None:
    teacher = teacher_for(parts, method)
    trainable = opened(parts, method)
    before = weights(trainable)
    trainer = trainer_for(parts, trainable, teacher)
    for _ in range(3):
        trainer.step()
    assert furthest(before, weights(trainable)) <= 1e-6


@pytest.mark.parametrize("method", ["full", "lora"])
def test_with_noise_as_the_target_the_same_steps_move_it(parts: dict[str, Any], method: str) -> None:
    trainable = opened(parts, method)
    before = weights(trainable)
    trainer = trainer_for(parts, trainable, None)
    trainer.step()
    assert furthest(before, weights(trainable)) > 1e-4


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_that_left_the_base_is_drawn_back(parts: dict[str, Any], method: str) -> None:
    teacher = teacher_for(parts, method)
    trainable = opened(parts, method)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in trainable.tensors.values():
            tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
    trainer = trainer_for(parts, trainable, teacher, rate=2e-4)
    distances = [trainer.step().prior_loss for _ in range(6)]
    assert 0 < distances[-1] < distances[0]


def test_stored_and_live_predictions_agree(parts: dict[str, Any], tmp_path: Path) -> None:
    """Of one base, asked through an adapter that is switched off and read back from a file, in other batches."""
    write_predictions(tmp_path / "file", stored(parts).predictions)
    found = Stored(read_predictions(tmp_path / "file"), 7)
    offline = StoredTeacher({(0, image, 1): (found, index, 0) for index, image in enumerate(CLASS)}, PROCESS)
    live = teacher_for(parts, "lora")
    trainable = opened(parts, "lora")
    with torch.no_grad():
        for tensor in trainable.tensors.values():
            tensor.add_(0.1)
    rows = [Row(image, 1, turn) for turn in range(3) for image in CLASS]
    draws = [offline.draw(row) for row in rows]
    latents = subject_images().draw([row.image for row in rows], torch.stack([draw.spread for draw in draws if draw]))
    timesteps = torch.stack([draw.level for draw in draws if draw])
    noisy = PROCESS.noised(latents, torch.stack([draw.noise for draw in draws if draw]), timesteps)
    difference = (live.targets(rows, noisy, timesteps) - offline.targets(rows, noisy, timesteps)).abs().max()
    assert float(difference) <= 1e-5
    tuned = parts["unet"](noisy, timesteps, frozen(parts).rows([1] * len(rows)).states).sample
    assert float((tuned - offline.targets(rows, noisy, timesteps)).detach().abs().max()) > 1e-3


def test_a_row_of_a_later_round_has_another_draw_until_they_are_used_up(parts: dict[str, Any]) -> None:
    teacher = stored_teacher(parts)
    draws = [teacher.draw(Row(CLASS[0], 1, turn)) for turn in range(DRAWS + 1)]
    assert not torch.equal(draws[0].noise, draws[1].noise)
    assert torch.equal(draws[0].noise, draws[DRAWS].noise) and draws[0].level == draws[DRAWS].level
    assert draws[0].level == draw_of(7, 0, 0, (4, 8, 8), PROCESS).level


def test_class_rows_are_trained_at_the_noise_their_prediction_was_stored_for(parts: dict[str, Any]) -> None:
    teacher = stored_teacher(parts)
    trainer = trainer_for(parts, opened(parts, "full"), teacher)
    batch = trainer.inputs.batches.subject_rows(3) + trainer.inputs.batches.prior_rows(3)
    latents, noise, timesteps = trainer._noise_inputs(batch, list(range(len(batch))), 3, 2)
    for place in (2, 3):
        draw = teacher.draw(batch[place])
        assert torch.equal(noise[place], draw.noise) and timesteps[place] == draw.level
        assert torch.equal(latents[place], subject_images().draw([batch[place].image], draw.spread[None])[0])
    free = trainer_for(parts, opened(parts, "full"), None)._noise_inputs(batch, list(range(len(batch))), 3, 2)
    assert torch.equal(noise[:2], free[1][:2]) and not torch.equal(noise[2:], free[1][2:])


def test_subjects_that_share_class_images_have_draws_of_their_own(parts: dict[str, Any]) -> None:
    found = stored(parts)
    places = {(subject, image, 1): (found, index, subject) for index, image in enumerate(CLASS) for subject in (0, 1)}
    teacher = StoredTeacher(places, PROCESS)
    subjects = [SubjectData([[0]], [SentenceData([0], [0], CLASS, 1)])] * 2
    rows = [row for step in range(6) for row in BatchSampler(subjects, batch_size=1, seed=0).prior_rows(step)]
    draws = [teacher.draw(row) for row in rows]
    assert [row.subject for row in rows] == [0, 1] * 3
    assert len({float(draw.noise.sum()) for draw in draws if draw is not None}) == len(rows) == DRAWS * len(CLASS)
    targets = teacher.targets(rows, torch.zeros(6, 4, 8, 8), torch.zeros(6))
    assert torch.equal(targets, torch.stack([found.predictions[row.subject, CLASS.index(row.image)] for row in rows]))


def test_rounding_is_no_difference_and_more_than_rounding_is() -> None:
    own = torch.tensor([1.0, 1.0, -3.0])
    taught = torch.tensor([1.0 + 1e-5, 1.0 + 1e-3, -3.0 - 3e-5])
    assert torch.equal(losses.teacher_target(own, taught), torch.tensor([1.0, 1.0 + 1e-3, -3.0]))


def test_rounds_are_those_that_the_rows_deal() -> None:
    own, other = (
        SubjectData([[0]], [SentenceData([0], [0], (1, 2, 3), 1)]),
        SubjectData([[4]], [SentenceData([2], [2], (5, 6), 3)]),
    )
    plan = BatchSampler([own, other], batch_size=1, seed=0, rehearsed=1, rehearsal_share=0.25)
    for rows in (1, 4, 12, 13, 40):
        dealt = [row for step in range(rows) for row in plan.prior_rows(step)]
        seen = [max((row.epoch + 1 for row in dealt if row.prompt == prompt), default=0) for prompt in (1, 3)]
        assert plan.class_epochs(rows) == [[one] for one in seen]


def mixed_lora(parts: dict[str, Any]) -> LoraWeights:
    """Layers of different rank and alpha, as other tools write them."""
    generator = torch.Generator().manual_seed(2)
    names = [name for name, module in parts["unet"].named_modules() if name.endswith("attn1.to_q")][:3]
    layers = {}
    for rank, name in enumerate(names, start=1):
        width = parts["unet"].get_submodule(name).weight.shape
        down, up = (torch.randn(*shape, generator=generator) for shape in ((rank, width[1]), (width[0], rank)))
        layers[name] = LoraLayer(down, up, 2.5 * rank)
    return LoraWeights({"unet": layers})


@pytest.mark.parametrize("text", [False, True])
def test_a_lora_of_mixed_ranks_is_gone_on_with_layer_for_layer(parts: dict[str, Any], text: bool) -> None:
    lora = mixed_lora(parts)
    options = LoraOptions(2, 4.0, ["to_q"], ["q_proj"], train_text=text)
    trainable = add_lora(tiny_models.tunable(parts), options, lora)
    assert any(name.startswith("text_encoder.") for name in trainable.tensors) == text
    back = attached_lora(tiny_models.tunable(parts))
    assert {name: (layer.rank, layer.alpha) for name, layer in back.part("unet").items()} == {
        name: (layer.rank, layer.alpha) for name, layer in lora.part("unet").items()
    }
    assert all(torch.equal(back.part("unet")[name].up, layer.up) for name, layer in lora.part("unet").items())
    trainer_for(parts, trainable, None, rate=1e-2).step()
    after = attached_lora(tiny_models.tunable(parts))
    assert not any(torch.equal(after.part("unet")[name].up, layer.up) for name, layer in lora.part("unet").items())
