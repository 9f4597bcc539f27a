"""Killed at any instant, a run goes on and ends as one that was not: the same bits."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability.conftest import IN_SIZES, JOB, RUN, start_or_resume
from tests.reliability.processes import ForkServer, Process, events, record, weights_hash
from tests.reliability.sabotage import KILLED

# A busy machine is no fault: what would hang for ever is found by the processes' own limit.
pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
Figures = Callable[[str], None]
KILLS_A_RUN = 4
LOKR = ("--set=lora.kind=lokr", "--set=lora.factor=2", "--set=lora.rank=1", "--set=lora.decompose_both=true")
LOHA = ("--set=lora.kind=loha", "--set=lora.targets=[to_q,conv1]", "--set=lora.tucker=true")


def is_finished(project: Path) -> bool:
    """Whether the run's record says that it came to its end."""
    begun = (project / "runs" / RUN / "run.json").exists()
    return begun and record(project / "runs" / RUN)["state"] == "finished"


def strike(process: Process, chance: random.Random, seconds: float) -> bool:
    """Kills at a random moment, told by the clock or by what has been recorded; False if it had ended before."""
    if chance.random() < 0.7:
        time.sleep(chance.uniform(0, seconds))
    else:
        log = process.folder / "runs" / RUN
        count = len(events(log)) + chance.randint(1, 9)
        process.wait_until(lambda: len(events(log)) >= count)
    if process.is_alive():
        process.signal(signal.SIGKILL)
    return process.wait().code == -signal.SIGKILL


def one_story(
    server: ForkServer, project: Path, seed: int, seconds: float, kills: int, job: Sequence[object] = JOB
) -> tuple[int, str]:
    """A run killed up to `kills` times and then left alone: kills that hit, and the hash of its weights."""
    chance, hits = random.Random(seed), 0
    for _ in range(kills):
        hits += strike(start_or_resume(server, project, job), chance, seconds)
        if (project / "runs" / RUN / "run.json").exists() and record(project / "runs" / RUN)["state"] == "finished":
            break
    else:
        start_or_resume(server, project, job).wait().check(0)
    assert record(project / "runs" / RUN)["state"] == "finished"
    return hits, weights_hash(project / "runs" / RUN)


@pytest.mark.parametrize("kills", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_runs_killed_at_random_moments_end_bit_equal(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], figures: Figures, kills: int
) -> None:
    expected, seconds = whole
    done, equal, stories = 0, 0, 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        while done < kills:
            batch = [(new_project(), stories + number) for number in range(2)]
            stories += len(batch)
            told = pool.map(lambda one: one_story(server, one[0], one[1], seconds, KILLS_A_RUN), batch)
            for hits, found in told:
                done += hits
                equal += found == expected
    figures(
        f"{done} SIGKILLs in {stories} runs; {equal} of {stories} ended sha256-equal to the run that was not killed"
    )
    assert equal == stories


@pytest.mark.parametrize(
    "places", [(0, 1, 7, 13, 19), pytest.param(tuple(range(20)), marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("sets", [(), (IN_SIZES,), LOKR, LOHA], ids=["squares", "sizes", "LoKr", "LoHa"])
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_resumed_at_any_step_of_twenty_not_one_bit_differs(
    server: ForkServer,
    new_project: NewProject,
    figures: Figures,
    places: tuple[int, ...],
    method: str,
    sets: tuple[str, ...],
) -> None:
    project = new_project()
    job = [*(word if word != "lora" else method for word in JOB), *sets]
    kept = [
        "--steps",
        20,
        "--set=train.checkpoint_every=1",
        "--set=train.keep_checkpoints=30",
        "--set=train.keep_finished=all",
    ]
    server.run(project, *job, "--steps", 20, *kept).check(0)
    expected = state_of(project)
    different = 0
    for step in places:
        copy = Path(shutil.copytree(project, project.with_name(f"{project.name}-{step}")))
        forget_after(copy / "runs" / RUN, step)
        server.run(copy, "train", "--resume").check(0)
        different += state_of(copy) != expected
        shutil.rmtree(copy)
    figures(f"{method}: resumed at {len(places)} steps of 20 in fresh processes, {different} ended with another bit")
    assert different == 0


def state_of(project: Path) -> dict[str, bytes]:
    """The last checkpoint (weights, averages, optimiser, numbers) and the result."""
    run = project / "runs" / RUN
    files = sorted((run / "checkpoints" / "step-000020").iterdir())
    return {"weights": weights_hash(run).encode(), **{path.name: path.read_bytes() for path in files}}


def forget_after(run: Path, step: int) -> None:
    """Makes a finished run look as if it had been killed just after the checkpoint of a step."""
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    shutil.rmtree(run / "weights")
    table = record(run) | {"state": "running", "step": step}
    (run / "run.json").write_text(json.dumps(table))


SAVES = {
    "checkpoint": {"function": "dbcli.workflows.training.checkpoints.save_checkpoint", "step": 4},
    "weights": {"function": "dbcli.workflows.models.weights.save_tuned"},
    "first record": {"function": "dbcli.project.runs.run_store.create_run"},
    "record": {"function": "dbcli.project.runs.run_store.save_run"},
}


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["checkpoint", "weights", "first record", "record"])
def test_killed_at_the_file_boundaries_of_a_save(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], figures: Figures, what: str, every: int
) -> None:
    before = new_project()
    if what != "first record":
        # So that what is tested is the save, and not the way to it.
        stop_at(server, before, 3)
    counted = before.parent / "counted"
    words = JOB if what == "first record" else ["train", "--resume"]
    trial = Path(shutil.copytree(before, before.parent / "count"))
    server.run(trial, *words, die_in={**SAVES[what], "counted": str(counted)}).check(0)
    boundaries = int(counted.read_text())
    assert boundaries > 3
    deaths = [(at, half) for at in range(1, boundaries + 1) for half in (False, True)][::every]

    def die(death: tuple[int, bool]) -> bool:
        at, half = death
        project = Path(shutil.copytree(before, before.parent / f"{at}-{half}"))
        server.run(project, *words, die_in={**SAVES[what], "at": at, "half": half}).check(KILLED)
        if not is_finished(project):  # the last operations of all come after the run has said so
            start_or_resume(server, project).wait().check(0)
        steps = [event["step"] for event in events(project / "runs" / RUN) if event.get("event") == "resumed"]
        same = weights_hash(project / "runs" / RUN) == whole[0]
        shutil.rmtree(project)
        # The checkpoint of step 3 was there before the save began: never less than it may be found again.
        return same and all(step >= 3 for step in steps)

    with ThreadPoolExecutor(max_workers=2) as pool:
        sound = sum(pool.map(die, deaths))
    figures(f"{what}: {len(deaths)} deaths over {boundaries} file operations; {sound} resumed and ended sha256-equal")
    assert sound == len(deaths)


def stop_at(server: ForkServer, project: Path, step: int, job: Sequence[object] = JOB) -> None:
    """Runs the job until a step is recorded and asks it to stop; the test goes on from its checkpoint."""
    process = server.start(project, *job, "--set=train.checkpoint_every=1", stop_after={"step": step})
    process.wait().check(143)
    assert record(project / "runs" / RUN)["step"] == step
