"""A benchmark or sweep killed at any instant and started again ends with the same scores, and does no run twice."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.project import photo_makers
from tests.reliability.processes import ForkServer, events, record

pytestmark = pytest.mark.timeout(1800)
Figures = Callable[[str], None]
BENCH = [
    *("bench", "--method", "lora", "--steps", 4, "--suite", "quick", "--judge", "tiny", "-n", 2, "--seed", 0),
    *("--set=prior.images=3", "--set=prior.steps=2", "--set=prior.batch_size=2", "--set=train.checkpoint_every=1"),
    *("--set=draw.steps=2", "--set=draw.batch_size=4", "--name", "killed"),
]
SWEEP = ("sweep", "killed.yaml")
SWEEP_FILE = """
name: killed
method: lora
judge: tiny
subject: dog
settings: {train: {steps: 4, checkpoint_every: 1}, prior: {images: 3, steps: 2, batch_size: 2}, draw: {steps: 2}}
pictures: {prompts: ["a {identifier} {class} at night"], count: 2, seed: 0}
grid:
  recipe:
    LoKr: {lora.kind: lokr, lora.factor: 2}
    LoHa, schedule-free: {lora.kind: loha, train.optimizer: schedulefree}
    Prodigy: {train.optimizer: prodigy, train.learning_rate: 1}
"""
KILLS = 3


@pytest.fixture(scope="module")
def two_subjects(server: ForkServer, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    project = Path(shutil.copytree(template, folder / "project"))
    photos = [photo_makers.save(folder / f"{index}.png", photo_makers.plain((30, 80 * index, 200))) for index in (1, 2)]
    server.run(project, "add-subject", "cat", "--class", "cat", *photos).check(0)
    (project / SWEEP[1]).write_text(SWEEP_FILE, encoding="utf-8")
    return project


@dataclass(frozen=True)
class Undisturbed:
    """What nothing stopped: the command, its scores.json, its seconds, and the subjects of its runs."""

    words: Sequence[object]
    scores: bytes
    seconds: float
    subjects: Sequence[str]


@pytest.fixture(scope="module", params=[BENCH, SWEEP], ids=["a benchmark", "a sweep of kinds"])
def undisturbed(
    request: pytest.FixtureRequest, server: ForkServer, two_subjects: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    project = Path(shutil.copytree(two_subjects, tmp_path_factory.mktemp("undisturbed") / "project"))
    began = time.monotonic()
    server.run(project, *request.param).check(0)
    seconds = time.monotonic() - began
    return Undisturbed(request.param, scores_of(project), seconds, subjects_of(project))


def scores_of(project: Path) -> bytes:
    return (project / "sweeps" / "killed" / "scores.json").read_bytes()


def has_done(project: Path, steps: int) -> bool:
    return sum("loss" in event for run in project.glob("runs/*") for event in events(run)) >= steps


def subjects_of(project: Path) -> list[str]:
    """The subject of each run, in the order of the runs."""
    return [record(path.parent)["subjects"][0]["name"] for path in sorted(project.glob("runs/*/run.json"))]


@pytest.mark.parametrize("stories", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_three_times_it_ends_with_the_same_scores(
    server: ForkServer, two_subjects: Path, undisturbed: Undisturbed, tmp_path: Path, figures: Figures, stories: int
) -> None:
    words, hits, equal = undisturbed.words, 0, 0
    for seed in range(stories):
        project = Path(shutil.copytree(two_subjects, tmp_path / f"project{seed}"))
        chance = random.Random(seed)
        for number in range(KILLS):
            process = server.start(project, *words)
            if number == 0:
                # Whatever the machine's pace is now, one kill strikes work under way.
                process.wait_until(partial(has_done, project, chance.randint(1, 6)))
            else:
                # A moment of the machine's own choosing: half of the whole, so that most kills strike.
                time.sleep(chance.uniform(0.1, 0.5) * undisturbed.seconds)
            process.signal(signal.SIGKILL) if process.is_alive() else None
            hits += process.wait().code == -signal.SIGKILL
        server.run(project, *words).check(0)
        equal += scores_of(project) == undisturbed.scores
        assert subjects_of(project) == undisturbed.subjects
    written = {path: path.stat().st_mtime_ns for path in project.glob("runs/*/**/*") if path.is_file()}
    server.run(project, *words).check(0)
    assert {path: path.stat().st_mtime_ns for path in project.glob("runs/*/**/*") if path.is_file()} == written
    figures(f"{hits} SIGKILLs in {stories} times; {equal} ended with a byte-equal scores.json")
    assert hits > 0
    assert equal == stories
