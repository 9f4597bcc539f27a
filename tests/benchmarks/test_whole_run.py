"""One whole run, split into phases that together are the whole command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def whole_run(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("whole_run")


def test_the_table_holds_medians_and_tells_the_cost_of_a_piece(whole_run: ModuleType) -> None:
    runs = [
        {"steps": 8.0, "whole command": 32.0, "peak bytes": 6e9, "a step": 0.016},
        {"steps": 16.0, "whole command": 40.0, "peak bytes": 6e9, "a step": 0.017},
        {"steps": 10.0, "whole command": 36.0, "peak bytes": 6e9, "a step": 0.018},
    ]
    assert whole_run.table(runs, {"steps": 800}).splitlines()[2:] == [
        "| steps | 10 | 28% | 800, 12.5 ms each |",
        "| whole command | 36 | 100% |  |",
        "",
        "The median step takes 17.0 ms. Peak memory 6.00 GB.",
    ]


def test_a_whole_run_at_toy_size(
    whole_run: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "whole.json"
    words = ["--steps", "3", "--class-images", "2", "--resolution", "64", "--set", "prior.steps=1"]
    monkeypatch.setattr("sys.argv", ["whole_run", "--base", str(base), *words, "--json", str(file)])
    whole_run.main()
    document = json.loads(file.read_text())
    (run,) = document["runs"]
    phases = ("start and end", "load", "class images", "encode", "steps", "checkpoints", "save")
    assert all(run[phase] > 0 for phase in phases)
    # Records keep thousandths of a second.
    assert sum(run[phase] for phase in phases) == pytest.approx(run["whole command"], abs=0.01)
    assert run["peak bytes"] > 1e8 and 0 < run["a step"] <= run["steps"]
    assert document["counts"] == {"class images": 2, "encode": 6, "steps": 3}
