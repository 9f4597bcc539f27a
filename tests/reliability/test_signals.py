"""Ctrl-C and a request to end are heard in every phase, lose nothing, and never show a traceback."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability.conftest import JOB, RUN, start_or_resume
from tests.reliability.processes import Ended, ForkServer, Process, record, weights_hash

# A busy machine is no fault: what would hang for ever is found by the processes' own limit.
pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
Figures = Callable[[str], None]
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
DRAW = ["generate", "a {dog} in space", "-n", 4, "--steps", 6, "--grid"]
SCORE = ["eval", "--judge", "tiny", "--suite", "demo", "--count", 1, "--grid"]


def told_to_stop(process: Process, chance: random.Random, seconds: float) -> tuple[Ended, float]:
    """Sends a signal at a random moment, and half of the time another one; how it ended, and how long it took."""
    number = chance.choice(list(SIGNALS))
    time.sleep(chance.uniform(0.02, seconds))
    began = time.monotonic()
    for _ in range(chance.choice([1, 1, 2])):
        if process.is_alive():
            process.signal(number)
    ended = process.wait()
    # A signal that came after the last step finds the work done: it is kept, and the exit code says so.
    return ended.check(0, SIGNALS[number]), time.monotonic() - began


@pytest.mark.parametrize("count", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_a_training_told_to_stop_at_random_moments_goes_on_bit_equal(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], figures: Figures, count: int
) -> None:
    expected, seconds = whole

    def story(seed: int) -> tuple[int, bool, float]:
        project, chance = new_project(), random.Random(seed)
        ended, waited = told_to_stop(server.start(project, *JOB), chance, seconds)
        run = project / "runs" / RUN
        if not run.exists() or record(run)["state"] != "finished":
            start_or_resume(server, project).wait().check(0)
        else:
            assert ended.code in (0, *SIGNALS.values())
        same = weights_hash(run) == expected
        shutil.rmtree(project)
        return ended.code, same, waited

    with ThreadPoolExecutor(max_workers=2) as pool:
        told = list(pool.map(story, range(count)))
    stopped = sum(code != 0 for code, _, _ in told)
    slowest = max(waited for _, _, waited in told)
    figures(f"{count} signals, {stopped} stopped a run, the slowest within {slowest:.1f} s; all resumed sha256-equal")
    assert all(same for _, same, _ in told)


@pytest.mark.parametrize("count", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_drawing_and_scoring_told_to_stop_can_be_done_again(
    server: ForkServer, new_project: NewProject, figures: Figures, count: int
) -> None:
    project, chance = new_project(), random.Random(7)
    server.run(project, *JOB).check(0)
    codes = []
    for words in (DRAW, SCORE):
        began = time.monotonic()
        server.run(project, *words).check(0)
        seconds = time.monotonic() - began
        for _ in range(count // 2):
            shutil.rmtree(project / "runs" / RUN / "images", ignore_errors=True)
            shutil.rmtree(project / "runs" / RUN / "eval", ignore_errors=True)
            shutil.rmtree(project / ".cache" / "features", ignore_errors=True)
            codes.append(told_to_stop(server.start(project, *words), chance, seconds)[0].code)
        server.run(project, *words).check(0)
    figures(f"{len(codes)} signals while drawing and scoring, {sum(code != 0 for code in codes)} stopped a command")


def test_a_second_signal_ends_at_once_and_damages_nothing(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float]
) -> None:
    project = new_project()
    ended = server.run(project, *JOB, stop_twice={"step": 3})
    ended.check(143)
    assert record(project / "runs" / RUN)["state"] == "running"
    server.run(project, "train", "--resume").check(0)
    assert weights_hash(project / "runs" / RUN) == whole[0]


@pytest.mark.parametrize("phase", ["class images", "encoding"])
def test_a_signal_is_heard_before_the_first_step(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], phase: str
) -> None:
    project = new_project()
    ended = server.run(project, *JOB, stop_in={"phase": phase}).check(130)
    assert "Stopped while" in ended.err
    assert record(project / "runs" / RUN)["state"] == "interrupted"
    server.run(project, "train", "--resume").check(0)
    assert weights_hash(project / "runs" / RUN) == whole[0]
