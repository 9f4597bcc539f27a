"""Probes killed or interrupted at any point: the run goes on and ends, weights and scores, as one that was not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.conftest import RUN
from tests.reliability.processes import ForkServer, events, record, weights_hash
from tests.reliability.sabotage import KILLED

pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
JOB = [
    *("train", "--subject", "dog", "--method", "lora", "--steps", 4, "--set=train.learning_rate=0.01"),
    *("--set=train.ema=0.9", "--set=lora.dropout=0.1", "--set=train.checkpoint_every=3"),
    *("--set=prior.enabled=false", "--set=draw.batch_size=1"),
    *("--set=probe.judge=tiny", "--set=probe.every=2", "--set=probe.seeds=1", "--set=probe.steps=2"),
]
# Where a probe reaches the disk: its pictures, the weights it keeps, the record that makes it count.
DEATHS = {
    "pictures": {"function": "dbcli.workflows.probes.probes.save_png", "at": 4},
    "weights": {"function": "dbcli.workflows.probes.probes.keep_weights", "at": 6, "half": True},
    "record": {"function": "dbcli.workflows.probes.probes.save_probes", "at": 9},
}


def found(project: Path) -> list[dict[str, Any]]:
    """What the probes measured, without what they took."""
    table = json.loads((project / "runs" / RUN / "probes" / "probes.json").read_text())
    return [{key: value for key, value in one.items() if key != "seconds"} for one in table["probes"]]


@pytest.fixture(scope="module")
def probed(server: ForkServer, template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    project = Path(shutil.copytree(template, tmp_path_factory.mktemp("probed") / "project"))
    server.run(project, *JOB).check(0)
    return weights_hash(project / "runs" / RUN), found(project)


@pytest.mark.parametrize("where", list(DEATHS))
def test_killed_in_a_probe_a_run_ends_as_one_that_was_not(
    server: ForkServer, new_project: NewProject, probed: tuple[str, Any], where: str
) -> None:
    project = new_project()
    server.run(project, *JOB, die_in=DEATHS[where]).check(KILLED)
    assert record(project / "runs" / RUN)["state"] == "running"
    server.run(project, "train", "--resume").check(0)
    assert (weights_hash(project / "runs" / RUN), found(project)) == probed


def test_a_signal_in_a_probe_stops_cleanly_and_the_probe_is_made_later(
    server: ForkServer, new_project: NewProject, probed: tuple[str, Any]
) -> None:
    project = new_project()
    # Without a prior the first picture that is decoded is a probe's.
    ended = server.run(project, *JOB, stop_in={"phase": "class images"}).check(130)
    assert "Stopped after step 2 of 4" in ended.err
    # Stopping on purpose is no error, and what goes on is there to be typed.
    assert "Error:" not in ended.err
    assert "→ dreambooth train --resume " in ended.err
    assert not [event for event in events(project / "runs" / RUN) if event.get("event") == "probe"]
    server.run(project, "train", "--resume").check(0)
    assert (weights_hash(project / "runs" / RUN), found(project)) == probed


def test_probes_of_steps_that_are_made_anew_at_a_lower_rate_are_made_anew(
    server: ForkServer, new_project: NewProject
) -> None:
    project = new_project()
    sets = ["--set=train.checkpoint_every=2", "--set=train.on_divergence=lower-rate", "--set=probe.every=1"]
    job = [word for word in JOB if not str(word).startswith(("--set=train.checkpoint_every", "--set=probe.every"))]
    server.run(project, *job, *sets, nan_at={"step": 4, "only_at_full_rate": True}).check(0)
    assert events_of_probes(project) == [1, 2, 3, 3, 4]
    assert [one["step"] for one in found(project)] == [1, 2, 3, 4]


def events_of_probes(project: Path) -> list[int]:
    return [event["step"] for event in events(project / "runs" / RUN) if event.get("event") == "probe"]


def test_a_run_that_begins_again_is_probed_again(server: ForkServer, new_project: NewProject) -> None:
    project = new_project()
    job = [word for word in JOB if not str(word).startswith("--set=probe.every")]
    server.run(project, *job, "--set=probe.every=1", stop_after={"step": 3}).check(143)
    assert events_of_probes(project) == [1, 2]
    # The one checkpoint is at fault by the rule, and none is left to go back to.
    lower = ["train", "--resume", "--set=train.on_divergence=lower-rate"]
    server.run(project, *lower, nan_at={"step": 4, "only_at_full_rate": True}).check(0)
    assert events_of_probes(project) == [1, 2, 3, 1, 2, 3, 4]
    assert [one["step"] for one in found(project)] == [1, 2, 3, 4]


def test_a_run_that_falls_from_full_to_a_lora_is_judged_as_a_lora(server: ForkServer, new_project: NewProject) -> None:
    project = new_project()
    left_out = ("--method", "lora", "--set=probe.every", "--set=lora", "--steps", 4)
    job = [word for word in JOB if word not in left_out and not str(word).startswith(left_out[2:4])]
    sets = ["--profile", "auto", "--set=train.steps=4", "--set=probe.every=1"]
    no_room = {"step": 3, "error": "memory", "method": "full"}
    ended = server.run(project, *job, *sets, fail_at_step=no_room).check(0)
    assert record(project / "runs" / RUN)["method"] == "lora"
    assert events_of_probes(project) == [1, 2, 1, 2, 3, 4]
    assert [one["step"] for one in found(project)] == [1, 2, 3, 4]
    assert "Choosing among the probes" not in ended.err


def test_a_signal_in_the_last_probe_leaves_a_run_that_can_go_on(
    server: ForkServer, new_project: NewProject, probed: tuple[str, Any]
) -> None:
    project = new_project()
    every = [word if word != "--set=probe.every=2" else "--set=probe.every=4" for word in JOB]
    ended = server.run(project, *every, stop_in={"phase": "class images"}).check(130)
    assert "Stopped after step 4 of 4" in ended.err
    server.run(project, "train", "--resume").check(0)
    assert found(project) == probed[1][1:]
