"""Rungs come from the ladder itself; each is foretold, then measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dbcli.workflows import ladder


@pytest.fixture(scope="module")
def memory(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("memory")


def test_the_rungs_are_those_of_the_ladder(memory: ModuleType) -> None:
    found = memory.recipes()
    assert list(found) == [rung.name for rung in ladder.rungs()]
    assert found["full"] == ["--method", "full"]
    wanted = ["--method", "lora", "--set=train.gradient_checkpointing=true", "--set=lora.base=nf4"]
    assert found["LoRA, 4-bit base"] == wanted


def test_a_rung_is_measured_and_one_that_settings_rule_out_has_no_figures(
    memory: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tuple(rung for rung in ladder.LADDER if rung.name in ("full", "LoRA"))
    monkeypatch.setattr(ladder, "LADDER", kept)
    # Weights in bf16 are for the full method alone.
    sets = ["train.stochastic_rounding=true", "train.precision=bf16", "images.resolution=64"]
    rows = memory.measure(argparse.Namespace(base=str(base), size="small", set=sets), tmp_path)
    assert [row["recipe"] for row in rows] == ["full", "LoRA"]
    assert rows[0]["measured GB"] > 0 and rows[0]["fell back"] == []
    assert "stochastic_rounding" in rows[1]["ruled out"]
    lines = memory.table(rows).splitlines()
    assert lines[2].startswith("| full | ")
    assert lines[3] == "| LoRA | ruled out | ruled out | ruled out |"
