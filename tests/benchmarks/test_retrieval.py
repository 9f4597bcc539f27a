"""Retrieval of subjects: the nearest photo by hand, and the whole benchmark on made-up pictures of three colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

COLOURS = {"apple": (200, 30, 30), "frog": (30, 180, 40), "whale": (30, 60, 200)}


@pytest.fixture(scope="module")
def retrieval(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("retrieval")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos each of three discs of their own colour, in other places and before nearly the same grey."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(3):
            grey, (x, y) = int(random.integers(100, 120)), random.integers(40, 80, 2)
            pixels = np.full((120, 150, 3), grey, dtype=np.uint8)
            rows, columns = np.ogrid[:120, :150]
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < 36**2] = colour
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_the_nearest_other_row_decides(retrieval: ModuleType) -> None:
    # cosines: a-b .8, a-c 0, b-c .6: a and b are nearest to each other, c to b
    features = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    assert retrieval.nearest_right(features, ["one", "one", "other"]) == [True, True, False]
    assert retrieval.nearest_right(features, ["one", "other", "other"]) == [False, False, True]


def test_a_soft_image_is_held_against_the_other_photos_of_each_subject(retrieval: ModuleType) -> None:
    # photos a, a, b, b: [1, 0], [.6, .8], [.8, .6], [0, 1]. The soft image of the first is [1, 0]: its nearest other
    # photo is b's (.8), a's other one has .6 and b's two .4 in the mean; that of the last, [0, 1], is nearest to a's
    # (.8), where a's two have .4 in the mean and b's other one .6.
    photos = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    by_nearest, by_mean = retrieval.subject_right(photos, photos, ["a", "a", "b", "b"])
    # the second: nearest b's (.96), means a .6, b .88; the third likewise: nearest a's .96, means b .6, a .88
    assert (by_nearest, by_mean) == (0.0, 0.5)


def test_chance_is_the_share_of_pairs_of_one_subject(retrieval: ModuleType) -> None:
    # of 4 x 3 ordered pairs two are of one subject for "a", none for the others
    assert retrieval.chance(["a", "a", "b", "c"]) == pytest.approx(2 / 12)


def test_photos_are_cropped_to_their_middle_and_shrunk(retrieval: ModuleType) -> None:
    wide = Image.new("RGB", (30, 10), "red")
    wide.paste(Image.new("RGB", (10, 10), "blue"), (10, 0))
    (small,) = retrieval.shrunk([retrieval.square(wide)], 4)
    assert small.size == (4, 4)
    assert set(small.get_flattened_data()) == {(0, 0, 255)}


def test_the_whole_of_it_prints_a_row_for_each_judge_and_size(
    retrieval: ModuleType, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = Path(__file__).parents[2] / "dbcli" / "embedded" / "sd" / "vae"
    words = ["--judge", "tiny-dino", "--size", "32", "--size", "48", "--through", str(vae)]
    retrieval.main([str(photos), *words, "--json", str(tmp_path / "f")])
    out = capsys.readouterr().out
    assert "9 photos of 3 subjects, by chance 25.0%" in out
    found = json.loads((tmp_path / "f").read_text())
    assert [(row["judge"], row["size_px"]) for row in found["rows"]] == [
        ("colours alone", 32), ("tiny-dino", 32), ("colours alone", 48), ("tiny-dino", 48),
    ]  # fmt: skip
    assert all(row["right"] > 0.5 and row["soft_by_mean"] > 0.25 for row in found["rows"])
    assert "| soft, by the nearest | by the mean |" in out


def test_a_folder_without_photos_is_named(retrieval: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no folders of photos"):
        retrieval.main([str(tmp_path)])
