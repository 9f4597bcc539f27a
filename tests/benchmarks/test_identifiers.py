"""The pooling of the study of identifiers, on figures that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def study(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("identifiers")


def row(arrangement: str, first: float, second: float) -> dict[str, object]:
    subjects = {"dog": first, "cat": second}
    return {"arrangement": arrangement, "pair": "dog and cat", "right": (first + second) / 2, "subjects": subjects}


def test_cells_are_pooled_by_arrangement(study: ModuleType) -> None:
    rows = [row("one word", 0.0, 1.0), row("one word", 0.5, 1.0), row("two words", 1.0, 1.0)]
    lines = study.table(rows).splitlines()
    # (0.5 + 0.75) / 2, the first subject (0 + 0.5) / 2; resampled means are 0.5, 0.625 and 0.75
    assert lines[2] == "| one word | 2 | 62% | 50%-75% | 25% | 100% |"
    assert lines[3] == "| two words | 1 | 100% | 100%-100% | 100% | 100% |"


def test_the_interval_of_equal_values_is_a_point(study: ModuleType) -> None:
    assert study.interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_a_project_is_measured_with_as_many_pictures_as_were_asked_for(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def measured(*what: object) -> list[dict[str, object]]:
        asked.extend(what)
        return [row("one word", 0.0, 1.0)]

    monkeypatch.setattr(study, "measured", measured)
    monkeypatch.setattr("sys.argv", ["identifiers.py", "--project", str(tmp_path), "--pictures", "2"])
    study.main()
    assert asked == [tmp_path, "tiny-identifiers", 2]
    assert "| one word | 1 | 50% |" in capsys.readouterr().out
