"""Backgrounds that captions name, against what a person accepts: two photos whose answers are plain."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from dbcli.workflows.setup.embedded_words import embedded_words


@pytest.fixture(scope="module")
def study(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("backgrounds")


def test_ways_are_counted_by_what_a_person_accepts(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, behind in (("00", "blue"), ("01", "red")):
        (tmp_path / "dog3").mkdir(exist_ok=True)
        Image.new("RGB", (80, 60), behind).save(tmp_path / "dog3" / f"{name}.jpg")
    judged = tmp_path / "judged.txt"
    judged.write_text("# by eye\ndog3/00: blue |\ndog3/01: grass brown | red gray\n")
    figures = tmp_path / "figures.json"
    words = ["backgrounds.py", "--dataset", str(tmp_path), "--judgements", str(judged), "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", words)
    study.main()
    rows = {row["way"]: row for row in json.loads(figures.read_text())}
    assert [rows["border, colours"][key] for key in ("photos", "acceptable", "not_wrong", "scenes")] == [2, 1, 2, 0]
    assert [rows["always gray"][key] for key in ("acceptable", "not_wrong", "scenes_wrong")] == [0, 1, 0]


def test_every_judgement_is_in_words_that_a_caption_or_a_scene_has(study: ModuleType) -> None:
    words = embedded_words()
    known = {*words.colours, *words.scenes, *study.OWN_WORDS.values()}
    judgements = study.read_judgements(study.JUDGEMENTS.read_text())
    assert len(judgements) == 106
    assert all(one.acceptable and one.not_wrong <= known for one in judgements.values())
    assert study.word_of("in a field", words) == "field"
    assert (study.word_of("on green grass", words), study.word_of("on an orange background", words)) == (
        "grass",
        "orange",
    )
