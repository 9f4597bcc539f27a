"""The study of picked against last checkpoints: its ranks by hand, and the whole of it at toy size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def study(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("checkpoint_choice")


def points(study: ModuleType, *values: tuple[int, float, float]) -> list:
    return [study.Point(step, 0.0, 0.0, False, fidelity, editability) for step, fidelity, editability in values]


def test_ranks_are_means_of_two_and_equals_share(study: ModuleType) -> None:
    found = study.mean_ranks(points(study, (1, 0.1, 0.9), (2, 0.5, 0.5), (3, 0.5, 0.7)))
    # By fidelity 1, 2.5, 2.5; by editability 3, 1, 2.
    assert found == {1: 2.0, 2: 1.75, 3: 2.25}


def test_the_summary_says_by_how_much_and_for_how_many(study: ModuleType) -> None:
    def row(name: str, picked: float, last: float) -> object:
        return study.Row(name, "dog", [], 100, 200, picked, last, 3.0, 0.1, 1.0)

    found = study.summary([row("a", 2.0, 1.0), row("b", 2.0, 2.0), row("c", 2.5, 2.0)])
    assert found["difference"] == pytest.approx(0.5)
    assert (found["better"], found["equal"], found["worse"], found["held"]) == (2, 1, 0, True)
    assert found["low"] < 0.5 < found["high"]


def test_the_study_runs_goes_on_where_it_was_and_refuses_other_settings(
    study: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "one.yaml"
    suite.write_text("name: one\nany: ['a {identifier} {class} in space']\n")
    sets = ["train.batch_size=1", "prior.enabled=false", "draw.steps=2", "probe.steps=2", "probe.seeds=1"]
    words = [
        *("--base", str(base), "--steps", "4", "--every", "2", "--suite", str(suite), "--count", "1"),
        *("--work", str(tmp_path / "work"), "--json", str(tmp_path / "found.json")),
        *(word for one in sets for word in ("--set", one)),
    ]
    study.main(words)
    first = capsys.readouterr()
    table = json.loads((tmp_path / "found.json").read_text())
    assert [row["subject"] for row in table["rows"]] == ["patch", "dotty"]
    assert [point["step"] for point in table["rows"][0]["points"]] == [2, 4]
    assert table["rows"][0]["picked"] in (2, 4)
    assert "| **mean** |" in first.out
    study.main(words)
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err == ""
    with pytest.raises(SystemExit, match="other settings"):
        study.main([*words, "--set", "train.seed=3"])
