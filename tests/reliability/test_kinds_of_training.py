"""Killed and resumed with each optimiser and each way to learn, a run ends as one that was not: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.reliability.conftest import JOB, RUN
from tests.reliability.processes import ForkServer, events, record, weights_hash
from tests.reliability.sabotage import KILLED
from tests.reliability.test_kills import SAVES

NewProject = Callable[[], Path]
WITHOUT_AVERAGES = [word for word in JOB if word != "--set=train.ema=0.9"]
KINDS = {
    "prodigy": ["--set=train.optimizer=prodigy", "--set=train.learning_rate=1", "--set=train.warmup_steps=2"],
    "schedulefree": ["--set=train.optimizer=schedulefree", "--set=train.warmup_steps=2"],
    "muon": ["--set=train.optimizer=muon"],
    "rates of A and B": ["--set=lora.b_rate_ratio=16", "--set=train.warmup_steps=2"],
    "pissa": ["--set=lora.init=pissa"],
    "orthogonal, ranks by timestep": ["--set=lora.init=orthogonal", "--set=lora.rank=4", "--set=lora.least_rank=1"],
    "LoKr": ["--set=lora.kind=lokr", "--set=lora.factor=2"],
    "LoHa, words in another order": ["--set=lora.kind=loha", "--set=images.caption_shuffle=words"],
    "losses": [
        *("--set=train.loss=pseudo-huber", "--set=train.debiased_estimation=true", "--set=train.multires_noise=0.3"),
        *("--set=images.empty_share=0.3", "--set=images.held_out=1"),
    ],
}


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_run_ends_bit_equal(server: ForkServer, new_project: NewProject, name: str) -> None:
    job = [*WITHOUT_AVERAGES, *KINDS[name]]
    whole, killed = new_project(), new_project()
    server.run(whole, *job).check(0)
    # Killed as it writes its second checkpoint, it goes on from the first.
    server.run(killed, *job, die_in={**SAVES["checkpoint"], "at": 2, "half": True}).check(KILLED)
    server.run(killed, "train", "--resume").check(0)
    assert [one["step"] for one in events(killed / "runs" / RUN) if one.get("event") == "resumed"] == [2]
    assert weights_hash(killed / "runs" / RUN) == weights_hash(whole / "runs" / RUN)
    assert last_step(killed) == last_step(whole)
    kept_back = record(killed / "runs" / RUN)["held_out"]
    assert kept_back == record(whole / "runs" / RUN)["held_out"] and bool(kept_back) is (name == "losses")


def last_step(project: Path) -> dict[str, object]:
    """What is on record of the last step, apart from its time."""
    found = [event for event in events(project / "runs" / RUN) if "loss" in event][-1]
    return {name: value for name, value in found.items() if name != "seconds"}


def test_a_run_that_goes_on_with_another_optimiser_begins_with_what_the_one_before_averaged(
    server: ForkServer, new_project: NewProject
) -> None:
    project, job = (
        new_project(),
        [*WITHOUT_AVERAGES, "--set=train.optimizer=schedulefree", "--set=train.keep_finished=all"],
    )
    server.run(project, *job, die_in={**SAVES["checkpoint"], "at": 2, "half": True}).check(KILLED)
    (kept,) = (project / "runs" / RUN / "checkpoints").glob("step-000002")
    averaged, weights = load_file(kept / "ema.safetensors"), load_file(kept / "weights.safetensors")
    assert any(not torch.equal(averaged[name], weights[name]) for name in averaged)
    # At a rate of 0 the weights stay what they are.
    changes = ["--set=train.optimizer=adamw", "--set=train.learning_rate=0", "--set=train.weight_decay=0"]
    server.run(project, "train", "--resume", *changes).check(0)
    last = load_file(sorted((project / "runs" / RUN / "checkpoints").glob("step-*"))[-1] / "weights.safetensors")
    assert averaged.keys() == last.keys() and all(torch.equal(averaged[name], last[name]) for name in last)
