"""Start-up in pairs: both sides in turn, and a line with medians and spread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def pairs(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("start_up_pairs")


def test_sides_take_turns_after_one_round_that_is_not_measured(pairs: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def side(word: str) -> object:
        return pairs.Side([sys.executable, "-S", "-c", f"open({str(log)!r}, 'a').write({word!r})"], tmp_path)

    rows = pairs.measured(pairs.Case("both", side("a"), side("b"), 0.5), 2)
    # Names are sorted, "other" before "ours", and the other way round in every second pair.
    assert log.read_text() == "ab" + "ba" + "ab"
    assert [sorted(row) for row in rows] == 2 * [
        ["CPU ratio", "other CPU s", "other s", "ours CPU s", "ours s", "ratio"]
    ]
    assert all(row["ratio"] == row["ours s"] / row["other s"] for row in rows)


def test_a_command_that_ends_otherwise_than_it_should_is_told(pairs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exit 3\nwhy"):
        pairs.Side([sys.executable, "-S", "-c", "print('why'); raise SystemExit(3)"], tmp_path).took()
    assert pairs.Side([sys.executable, "-S", "-c", "raise SystemExit(3)"], tmp_path, code=3).took()[0] > 0


def test_a_line_has_medians_and_the_spread(pairs: ModuleType) -> None:
    case = pairs.Case("a known dry run", None, None, 1.0)
    rows = [{"ours s": seconds, "ours CPU s": 0.25} for seconds in (0.5, 0.3, 0.4)]
    expected = "| a known dry run | 0.40 (0.30 to 0.50) |  |  | 0.25 (0.25 to 0.25) |  |  | 1.0 |"
    assert pairs.line(case, rows) == expected


def test_a_project_is_copied_with_its_run_many_times(pairs: ModuleType, tmp_path: Path) -> None:
    project = tmp_path / "project"
    weights = project / "runs" / "0001-dog" / "weights"
    weights.mkdir(parents=True)
    (weights / "w.txt").write_text("w", encoding="utf-8")
    (project / "runs" / "0001-dog" / "run.json").write_text('{"name": "0001-dog"}', encoding="utf-8")
    made = pairs.with_runs(project, tmp_path / "many", 3)
    assert [one.parent.name for one in sorted(made.glob("runs/*/run.json"))] == ["0001-dog", "0002-dog", "0003-dog"]
    assert '"0003-dog"' in (made / "runs" / "0003-dog" / "run.json").read_text(encoding="utf-8")
    assert [one.parent.parent.name for one in made.glob("runs/*/weights/w.txt")] == ["0003-dog"]
