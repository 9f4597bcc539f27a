"""Both sides of a pair do the same work, and a peer is really run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# Stands for diffusers' script: writes down what it was asked, and a large folder as its result.
PEER = """
import json, pathlib, sys
words = sys.argv[1:]
options = dict(zip(words[::2], words[1::2]))
out = pathlib.Path(options["--output_dir"])
assert not out.exists(), "the run before was not removed"
out.mkdir()
with open(pathlib.Path(__file__).with_name("asked.jsonl"), "a") as asked:
    asked.write(json.dumps(options) + "\\n")
"""


@pytest.fixture(scope="module")
def step_time(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("step_time")


def test_seconds_a_step_are_the_difference_of_two_runs(step_time: ModuleType) -> None:
    # 40 steps more took 8 s more by the clock and 14 s more of processors.
    found = step_time.steps_alone(step_time.Timing(5.0, 6.0, 100), step_time.Timing(13.0, 20.0, 120), 40)
    assert found == step_time.Timing(0.2, 0.35, 120)


def test_a_pair_at_the_size_and_precision_asked_for(
    step_time: ModuleType, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text(PEER)
    written = []

    def write_base(folder: Path, size: str) -> Path:
        written.append(size)
        return base

    monkeypatch.setattr(step_time, "write_base", write_base)
    asked = argparse.Namespace(
        size="sd-v1", resolution=None, precision="bf16", method="full", text=False, pairs=1, steps=[1, 2], against=peer
    )
    (row,) = step_time.measure(asked, tmp_path)
    assert written == ["sd-v1"]
    assert {"ours s/step", "ours recorded s/step", "ours GB", "peer s/step", "peer/ours"} <= set(row)
    assert row["ours recorded s/step"] > 0 and row["ours GB"] > row["peer GB"] > 0
    told = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    assert [one["--max_train_steps"] for one in told] == ["1", "2"]
    assert {(one["--resolution"], one["--mixed_precision"]) for one in told} == {("64", "bf16")}
    assert list((tmp_path / "ours" / "runs").glob("*-dog")) == []
