"""A benchmark killed at any instant and started again ends with the same scores.json, and does no run twice."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import photo_makers
from tests.reliability.processes import ForkServer, record

pytestmark = pytest.mark.timeout(1800)
Figures = Callable[[str], None]
BENCH = [
    *("bench", "--method", "lora", "--steps", 4, "--suite", "quick", "--judge", "tiny", "-n", 2, "--seed", 0),
    *("--set=prior.images=3", "--set=prior.steps=2", "--set=prior.batch_size=2", "--set=train.checkpoint_every=1"),
    *("--set=draw.steps=2", "--set=draw.batch_size=4", "--name", "killed"),
]
KILLS = 3


@pytest.fixture(scope="module")
def two_subjects(server: ForkServer, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    project = Path(shutil.copytree(template, folder / "project"))
    photos = [photo_makers.save(folder / f"{index}.png", photo_makers.plain((30, 80 * index, 200))) for index in (1, 2)]
    server.run(project, "add-subject", "cat", "--class", "cat", *photos).check(0)
    return project


@pytest.fixture(scope="module")
def undisturbed(
    server: ForkServer, two_subjects: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, float]:
    """scores.json of a benchmark that nothing stopped, and the seconds it took."""
    project = Path(shutil.copytree(two_subjects, tmp_path_factory.mktemp("undisturbed") / "project"))
    began = time.monotonic()
    server.run(project, *BENCH).check(0)
    return (project / "sweeps" / "killed" / "scores.json").read_bytes(), time.monotonic() - began


@pytest.mark.parametrize("stories", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_a_benchmark_killed_three_times_ends_with_the_same_scores(
    server: ForkServer,
    two_subjects: Path,
    undisturbed: tuple[bytes, float],
    tmp_path: Path,
    figures: Figures,
    stories: int,
) -> None:
    expected, seconds = undisturbed
    hits, equal = 0, 0
    for seed in range(stories):
        project = Path(shutil.copytree(two_subjects, tmp_path / f"project{seed}"))
        chance = random.Random(seed)
        for _ in range(KILLS):
            process = server.start(project, *BENCH)
            # A moment of the machine's own choosing: half of the whole, so that most kills strike work under way.
            time.sleep(chance.uniform(0.1, 0.5) * seconds)
            process.signal(signal.SIGKILL) if process.is_alive() else None
            hits += process.wait().code == -signal.SIGKILL
        server.run(project, *BENCH).check(0)
        equal += (project / "sweeps" / "killed" / "scores.json").read_bytes() == expected
        runs = sorted(project.glob("runs/*/run.json"))
        assert [record(path.parent)["subjects"][0]["name"] for path in runs] == ["cat", "dog"]
    written = {path: path.stat().st_mtime_ns for path in project.glob("runs/*/**/*") if path.is_file()}
    server.run(project, *BENCH).check(0)
    assert {path: path.stat().st_mtime_ns for path in project.glob("runs/*/**/*") if path.is_file()} == written
    figures(f"{hits} SIGKILLs in {stories} benchmarks; {equal} ended with a byte-equal scores.json")
    assert hits > 0
    assert equal == stories
