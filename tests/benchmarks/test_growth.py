"""Growth: ratios by hand, and whole runs of a setting and of its doubles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def growth(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("growth")


def figures(whole: float, encode: float, steps: float) -> dict[str, float]:
    return {"whole": whole, "processors": 2 * whole, "load": 1.0, "class images": 1.0, "encode": encode, "steps": steps}


def test_one_thing_is_doubled_and_the_rest_stays(growth: ModuleType) -> None:
    small = growth.Setting(photos=4, class_images=8, steps=20, resolution=128)
    assert growth.doubled(small, growth.AXES["class images"]) == growth.Setting(4, 16, 20, 128)
    assert growth.doubled(small, growth.AXES["resolution"]) == growth.Setting(4, 8, 20, 256)


def test_ratios_are_medians_over_rounds_of_the_whole_and_of_the_phases(growth: ModuleType) -> None:
    rounds = [
        {"small": figures(10, 2, 4), "resolution": figures(25, 6, 14)},
        {"small": figures(20, 2, 4), "resolution": figures(40, 8, 18)},
        {"small": figures(10, 2, 4), "resolution": figures(30, 8, 19)},
    ]
    found = growth.growths("resolution", rounds)
    assert found["whole"] == growth.Growth(before=10, after=30, ratio=2.5)
    # Class images, encoding and steps together: 7 before, then 21, 27 and 28.
    assert found["phases"].after == 27 and found["phases"].ratio == pytest.approx(27 / 7)
    small = growth.Setting(4, 8, 20, 64)
    cells = growth.table(small, rounds).splitlines()[2].strip("| ").split(" | ")
    assert cells[:6] == ["resolution", "64 → 128", "10 → 30", "2.50", "20 → 60", "2.50"]
    assert cells[6:] == ["class images, encode, steps", "7 → 27", "3.86", "4.5"]


@pytest.mark.slow
def test_whole_runs_at_toy_size(
    growth: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "growth.json"
    small = ["--photos", "1", "--class-images", "1", "--steps", "1", "--draw-steps", "1", "--resolution", "64"]
    words = ["growth", "--base", str(base), "--double", "steps", "--pairs", "1", *small, "--json", str(file)]
    monkeypatch.setattr("sys.argv", words)
    growth.main()
    lines = capsys.readouterr().out.splitlines()
    assert "| steps | 1 → 2 |" in lines[-1] and len(lines) == 5
    document = json.loads(file.read_text())
    assert document["small"] == {"photos": 1, "class_images": 1, "steps": 1, "resolution": 64}
    (one,) = document["rounds"]
    assert list(one) == ["small", "steps"]
    for side in one.values():
        assert all(seconds > 0 for seconds in side.values())
    assert document["growth"]["steps"]["phases"]["before"] == one["small"]["steps"]
