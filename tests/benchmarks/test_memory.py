"""Rungs come from the ladder itself; each is foretold, then measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dbcli.workflows.memory import ladder


@pytest.fixture(scope="module")
def memory(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("memory")


def test_the_rungs_are_those_of_the_ladder(memory: ModuleType) -> None:
    found = memory.recipes()
    assert list(found) == [rung.name for rung in ladder.rungs()]
    assert found["full"] == ["--method", "full"]
    wanted = ["--method", "lora", "--set=train.gradient_checkpointing=true", "--set=lora.base=nf4"]
    assert found["LoRA, 4-bit base"] == wanted


@pytest.mark.slow
def test_a_rung_is_measured_and_one_that_settings_rule_out_has_no_figures(
    memory: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tuple(rung for rung in ladder.LADDER if rung.name in ("full", "LoRA"))
    monkeypatch.setattr(ladder, "LADDER", kept)
    # Only adapters leave the base frozen, and so in 8 bits.
    sets = ["lora.base=int8", "images.resolution=64"]
    rows = memory.measure(argparse.Namespace(base=str(base), size="small", set=sets), tmp_path)
    assert [row["recipe"] for row in rows] == ["full", "LoRA"]
    assert "lora.base=int8" in rows[0]["ruled out"]
    assert rows[1]["measured GB"] > 0 and rows[1]["fell back"] == []
    lines = memory.table(rows).splitlines()
    assert lines[2] == "| full | ruled out | ruled out | ruled out |"
    assert lines[3].startswith("| LoRA | ")
