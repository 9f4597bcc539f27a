"""Which subject do pictures show: the judge's arithmetic by hand, and the whole of it at toy size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.project import photo_makers

PROMPTS = "prompt_list = [\n'a {0} {1} in the snow'.format(unique_token, class_token),\n]\n"


@pytest.fixture(scope="module")
def study(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("identification")


def colours(images: list[Image.Image]) -> dict[str, torch.Tensor]:
    """Red and green of the first pixel, and the same the other way round."""
    rows = torch.tensor([[float(value) for value in image.getpixel((0, 0))[:2]] for image in images])
    return {"maps": rows, "top": rows.flip(1)}


def of(red: int, green: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (red, green, 0))


def test_a_picture_shows_the_subject_whose_photos_it_is_nearest_to_after_standardising(study: ModuleType) -> None:
    # Red is 100 more than 0 or 200 throughout: without the mean taken off, everything is red.
    judge = study.Judge(colours, "maps", {"low": [of(150, 10), of(152, 12)], "high": [of(150, 30), of(148, 32)]})
    found = judge.nearness([of(150, 14), of(150, 28)])
    assert study.nearest(found) == ["low", "high"]
    # Means 150 and 21: the picture (0, -7) in units of the spread points straight down.
    rows = torch.tensor([[0.0, -11.0], [2.0, -9.0]]) / torch.tensor([1.632993, 11.604597])
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert float(found["low"][0]) == pytest.approx(float(-unit[:, 1].mean()), abs=1e-4)
    assert judge.left_out() == 1.0


def test_the_summary_is_of_means_and_says_how_far_the_class_came_along(study: ModuleType) -> None:
    photos = {"one": [of(1, 1), of(2, 2)], "two": [of(9, 1), of(8, 2)]}
    judges = {kind: study.Judge(colours, kind, photos) for kind in ("maps", "top")}
    rows = [
        study.Row("one", "dog", 1.0, 0.5, 0.9, 0.4, 0.8, 0.4, 0.0, 0.5, 0.4, 0.1, 0.2, 0.8, 0.6, 10.0),
        study.Row("two", "cat", 0.5, 0.0, 0.1, 0.2, 0.6, 0.0, 0.25, 0.3, 0.2, 0.1, 0.2, 0.6, 0.5, 20.0),
    ]
    found = study.summary(rows, judges)
    assert (found["plain"], found["scenes"], found["as_asked"]) == (0.75, 0.25, pytest.approx(0.7))
    assert found["scenes_as_asked"] == pytest.approx(0.2)
    assert (found["plain_top"], found["left_out_photos_top"]) == (0.5, found["left_out_photos"])
    assert (found["likeness_plain"], found["likeness_scenes"]) == (pytest.approx(0.7), pytest.approx(0.55))
    # 0.4 - 0.1 is the subject's gain, 0.2 - 0.1 the class's rise.
    assert found["class_rise"] == pytest.approx(1 / 3)


def test_the_study_runs_goes_on_where_it_was_and_refuses_other_settings(
    study: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    dataset = tmp_path / "dataset"
    for number, name in enumerate(("backpack", "dog6", "duck_toy")):
        for photo in range(2):
            colour = (40 + 90 * number, 30 + 10 * photo, 80)
            photo_makers.save(dataset / name / f"{photo}.jpg", photo_makers.plain(colour))
    lists = f"Object Prompts\n{PROMPTS}\nLive Subject Prompts\n{PROMPTS}"
    classes = "subject_name,class\nbackpack,backpack\ndog6,dog\nduck_toy,toy\n"
    (dataset / "prompts_and_classes.txt").write_text(f"Classes\n{classes}\nPrompts\n\n{lists}")
    torch.save(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict(), tmp_path / "judge.pth")
    sets = ["train.steps=2", "train.batch_size=1", "prior.images=2", "prior.steps=1", "draw.steps=1"]
    words = [
        *("--dataset", str(dataset), "--half", "second", "--base", str(base), "--judge", str(tmp_path / "judge.pth")),
        *("--work", str(tmp_path / "work"), "--json", str(tmp_path / "found.json")),
        *(word for one in sets for word in ("--set", one)),
    ]
    study.main(words)
    first = capsys.readouterr()
    table = json.loads((tmp_path / "found.json").read_text())
    assert [(row["subject"], row["class_noun"]) for row in table["rows"]] == [("duck_toy", "duck")]
    assert all(0 <= table["rows"][0][key] <= 1 for key in ("plain", "scenes_top", "as_asked", "class_taken"))
    (row,) = table["rows"]
    assert row["scenes"] + row["as_asked"] - 1 <= row["scenes_as_asked"] <= min(row["scenes"], row["as_asked"])
    assert Image.open(tmp_path / "work" / "duck_toy.png").width > 500
    assert "| **mean** |" in first.out and "among 3 subjects (chance 33%)" in first.out
    study.main(words)
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")
    with pytest.raises(SystemExit, match="other settings"):
        study.main([*words, "--set", "train.seed=3"])
