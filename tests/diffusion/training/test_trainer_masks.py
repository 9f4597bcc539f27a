"""Masks: cropped and mirrored as their photos are, and what they do to a step's loss."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dbcli.diffusion.adapters.attach import make_full
from dbcli.diffusion.conditioning import FrozenPrompts
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.images import (
    RANDOM_CROPS,
    Box,
    Posterior,
    crop_boxes,
    grey_mask,
    mask_variants,
    photo_variants,
)
from dbcli.diffusion.training import losses
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from dbcli.errors import PhotoError
from tests.diffusion import tiny_models


def whole(width: int, height: int) -> list[Box]:
    return crop_boxes("center", width, height, seed=0, number=0)


def mask_file(path: Path, rows: list[list[int]]) -> Path:
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(path)
    return path


def test_a_latent_counts_as_much_as_it_shows_of_the_subject(tmp_path: Path) -> None:
    # 4 x 4 pixels on 2 x 2 latents: 4, 2, 1 and 0 of their four pixels are white.
    rows = [[255, 255, 255, 255], [255, 255, 0, 0], [255, 0, 0, 0], [0, 0, 0, 0]]
    (mask,) = mask_variants(mask_file(tmp_path / "m.png", rows), (4, 4), (2, 2), whole(4, 4))
    assert mask.shape == (1, 2, 2)
    assert torch.allclose(mask[0], torch.tensor([[1.0, 0.5], [0.25, 0.0]]), atol=1 / 255)


@pytest.mark.parametrize("crop", ["center", "random", "subject"])
def test_a_mask_is_cropped_and_mirrored_as_its_photo(tmp_path: Path, crop: str) -> None:
    # A photo that is its own mask: every view of the one must show what the same view of the other shows.
    image = Image.new("L", (64, 32))
    image.paste(255, (20, 4, 44, 20))
    image.convert("RGB").save(tmp_path / "photo.png")
    image.save(tmp_path / "mask.png")
    boxes = crop_boxes(crop, 64, 32, seed=3, number=7, mask=tmp_path / "mask.png")
    views = photo_variants(tmp_path / "photo.png", (32, 32), boxes, flip=True)
    masks = mask_variants(tmp_path / "mask.png", (64, 32), (8, 8), boxes, flip=True)
    assert len(views) == len(masks) == 2 * (RANDOM_CROPS if crop == "random" else 1)
    for view, mask in zip(views, masks, strict=True):
        seen = torch.nn.functional.avg_pool2d((view[:1] + 1) / 2, 4)
        assert float((seen - mask).abs().max()) < 0.15
    assert torch.equal(masks[0].flip(-1), masks[len(masks) // 2])


def test_a_mask_may_be_painted_at_another_size(tmp_path: Path) -> None:
    path = mask_file(tmp_path / "m.png", [[255, 0], [255, 0]])
    (mask,) = mask_variants(path, (40, 40), (2, 2), whole(40, 40))
    assert mask[0, :, 0].min() > 0.8 and mask[0, :, 1].max() < 0.2


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_a_mask_of_sixteen_bits_is_scaled_and_not_clipped(mode: str) -> None:
    # 300 of 65,535 is next to black; 32,768 is half of white.
    values = np.array([[0, 300], [32_768, 65_535]])
    painted = (values / 65_535).astype(np.float32) if mode == "F" else values.astype(np.uint16)
    image = Image.fromarray(painted).convert(mode) if mode == "I" else Image.fromarray(painted)
    assert image.mode == mode
    found = np.asarray(grey_mask(image)) / 255
    assert np.allclose(found, values / 65_535, atol=1e-6)


def test_a_background_of_nearly_black_in_sixteen_bits_counts_nearly_nothing(tmp_path: Path) -> None:
    values = np.full((4, 4), 300, dtype=np.uint16)
    values[:, :2] = 65_535
    Image.fromarray(values).save(tmp_path / "m.png")
    (mask,) = mask_variants(tmp_path / "m.png", (4, 4), (2, 2), whole(4, 4))
    assert torch.allclose(mask[0], torch.tensor([[1.0, 300 / 65_535]] * 2), atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "size", "message"),
    [([[0, 0], [0, 0]], (2, 2), "black everywhere"), ([[255] * 40] * 10, (40, 40), "its photo is 40 x 40")],
)
def test_a_mask_that_cannot_be_meant_is_named(
    tmp_path: Path, rows: list[list[int]], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(PhotoError, match=message):
        mask_variants(mask_file(tmp_path / "m.png", rows), size, (2, 2), whole(*size))


SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def trainer(weights: torch.Tensor | None) -> Trainer:
    parts: dict[str, Any] = {name: copy.deepcopy(one) for name, one in tiny_models.networks().items()}
    generator = torch.Generator().manual_seed(5)
    return Trainer(
        tiny_models.base_of(parts).denoiser,
        make_full(tiny_models.tunable(parts), train_text=False),
        StepInputs(
            Posterior(torch.randn(2, 4, 8, 8, generator=generator), torch.full((2, 4, 8, 8), 0.1)),
            FrozenPrompts(tiny_models.base_of(parts), ["a sks dog", "a dog"], torch.device("cpu")),
            BatchSampler([SubjectData([[0]], [SentenceData([0], [0], [1], 1)])], batch_size=1, seed=0),
            weights,
        ),
        objective=Objective(Diffusion.of(SCHEDULER)),
        optimisation=Optimisation(learning_rate=1e-3),
        loop=LoopSettings(steps=1),
    )


def test_only_the_masked_part_of_a_photo_is_learnt_and_all_of_a_class_image(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.ones(2, 1, 8, 8)
    weights[0, :, :, 4:] = 0.0
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    error_of_rows = losses.squared_error

    def watched(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((prediction.detach(), target.detach()))
        return error_of_rows(prediction, target, mask)

    monkeypatch.setattr(losses, "squared_error", watched)
    parts = trainer(weights).loss(0)
    ((prediction, target),) = seen
    error = (prediction - target).square()
    assert float(parts.subject) == pytest.approx(float(error[0, :, :, :4].mean()), rel=1e-5)
    assert parts.prior is not None
    assert float(parts.prior) == pytest.approx(float(error[1].mean()), rel=1e-5)


def test_weights_of_one_change_nothing() -> None:
    masked, plain = (trainer(weights).loss(0) for weights in (torch.ones(2, 1, 8, 8), None))
    assert float(masked.total.detach()) == pytest.approx(float(plain.total.detach()))
