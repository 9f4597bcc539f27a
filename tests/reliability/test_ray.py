"""A benchmark on Ray: it ends as a local one does, and a node that dies costs nothing but time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.project import photo_makers
from tests.reliability.processes import ROOT, SECONDS_TO_WAIT, ForkServer, events, record

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is an extra: pip install ray"),
]
BENCH = [
    *("bench", "--method", "lora", "--judge", "tiny", "-n", "1", "--seed", "0", "--name", "onray"),
    *("--set=prior.enabled=false", "--set=train.checkpoint_every=1", "--set=draw.steps=2"),
]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    # Ray makes its workers yield to everything else on the machine, other tests included.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture
def two_subjects(server: ForkServer, template: Path, tmp_path: Path) -> Path:
    project = Path(shutil.copytree(template, tmp_path / "project"))
    photos = [photo_makers.save(tmp_path / f"{index}.png", photo_makers.plain((30, 80 * index, 9))) for index in (1, 2)]
    server.run(project, "add-subject", "cat", "--class", "cat", *photos, "--token", "olis").check(0)
    return project


@contextmanager
def cluster(nodes: int) -> Iterator[tuple[str, Any]]:
    """The address of a running cluster, and its process."""
    words = [sys.executable, "-m", "tests.reliability.ray_cluster", str(nodes)]
    process = subprocess.Popen(words, stdin=-1, stdout=-1, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.stdin.write("end\n")
        process.stdin.close()
        process.wait()


def bench(project: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dbcli.cli.app", *BENCH, *words]
    return subprocess.Popen(command, cwd=project, env=ENVIRONMENT, text=True, stdout=-1, stderr=-1)


def ended(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate()
    assert process.returncode == 0, err
    return err


def test_a_benchmark_on_ray_ends_with_the_scores_of_a_local_one(
    server: ForkServer, two_subjects: Path, tmp_path: Path
) -> None:
    local = Path(shutil.copytree(two_subjects, tmp_path / "local"))
    one = ["--subject", "dog", "--steps", "1"]
    server.run(local, *BENCH, *one).check(0)
    ended(bench(two_subjects, "--engine", "ray", *one))
    scores = [(project / "sweeps" / "onray" / "scores.json").read_bytes() for project in (local, two_subjects)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_node_that_is_killed_costs_no_run_and_no_run_is_done_twice(two_subjects: Path) -> None:
    steps = 60
    with cluster(2) as (address, nodes):
        process = bench(two_subjects, "--engine", "ray", "--address", address, "--steps", str(steps))
        wait_for(lambda: all(len(events(run)) > 5 for run in runs(two_subjects)) and len(runs(two_subjects)) == 2)
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        assert nodes.stdout.readline().strip() == "killed"
        before = {run.name: len(events(run)) for run in runs(two_subjects)}
        assert min(before.values()) < steps
        err = ended(process)
    assert "Ray: 2 nodes" in err
    records = [record(run) for run in runs(two_subjects)]
    assert sorted(one["subjects"][0]["name"] for one in records) == ["cat", "dog"]
    assert [one["state"] for one in records] == ["finished", "finished"]
    # Nobody trained a step again that a checkpoint held: at most the one under way when the node died.
    counts = [[event["step"] for event in events(run) if "loss" in event] for run in runs(two_subjects)]
    assert all(sorted(set(steps_of)) == list(range(1, steps + 1)) for steps_of in counts)
    assert sum(len(steps_of) for steps_of in counts) <= 2 * steps + 2
    scores = json.loads((two_subjects / "sweeps" / "onray" / "scores.json").read_text(encoding="utf-8"))
    assert [cell["state"] for cell in scores["cells"]] == ["finished", "finished"]


def runs(project: Path) -> list[Path]:
    return sorted(path.parent for path in project.glob("runs/*/run.json"))


def wait_for(ready: Any) -> None:
    end = time.monotonic() + 3 * SECONDS_TO_WAIT
    while not ready():
        assert time.monotonic() < end, "the cluster never began"
        time.sleep(0.02)
