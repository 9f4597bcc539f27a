"""Commands on two real ranks, as `--gpus`, torchrun and `accelerate launch` start them, on the CPU over gloo."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.reliability.conftest import JOB, ON_CPU, RUN
from tests.reliability.processes import ROOT, ForkServer, events, record
from tests.reliability.test_ranks import (
    LOSS_BOUND,
    WEIGHT_BOUND,
    farthest_weights,
    images,
    launched,
    losses,
    with_images,
)

pytestmark = pytest.mark.timeout(600)
NewProject = Callable[[], Path]
SECONDS_TO_END = 120
MODULE = "dbcli.cli.start"
LAUNCHERS = {
    "--gpus": [sys.executable, "-m", MODULE],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
                 "--nproc-per-node=2", "-m", MODULE],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2",
                   "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0",
                   "-m", MODULE],
}  # fmt: skip


class Launched:
    """A launcher under way with its two ranks."""

    def __init__(self, launcher: str, project: Path, words: list[Any], **sabotage: dict[int, dict[str, Any]]) -> None:
        home = {f"XDG_{name}_HOME": str(project.parent / "home") for name in ("CONFIG", "CACHE", "STATE", "DATA")}
        spoilt = {rank: {name: ranks[rank] for name, ranks in sabotage.items() if rank in ranks} for rank in (0, 1)}
        self.log = project.parent / "said.txt"
        self.process = psutil.Popen(
            [*LAUNCHERS[launcher], *map(str, words), *(["--gpus", "2"] if launcher == "--gpus" else [])],
            cwd=project,
            env={
                **os.environ,
                **home,
                "TMPDIR": str(project.parent),  # torchrun leaves a folder for logs behind
                "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "reliability" / "in_ranks"), str(ROOT)]),
                "SABOTAGE": json.dumps(spoilt),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "GLOO_SOCKET_IFNAME": "lo",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.log.open("w"),
        )

    def ranks(self) -> dict[int, psutil.Process]:
        found = {}
        for one in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # git or a compiler, already ended: no rank
                found[int(one.environ().get("RANK", -1))] = one
        return {rank: one for rank, one in found.items() if rank >= 0}

    def wait_until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not ready():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end
            time.sleep(0.05)

    def ended(self, others: list[psutil.Process]) -> int:
        """The launcher's exit code, after making sure that its ranks are gone in time."""
        began = time.monotonic()
        code = self.process.wait(SECONDS_TO_END + 5)
        _, alive = psutil.wait_procs(others, timeout=max(0.0, SECONDS_TO_END - (time.monotonic() - began)))
        assert alive == []
        return int(code)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture
def launch() -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(*arguments: Any, **sabotage: Any) -> Launched:
        started.append(Launched(*arguments, **sabotage))
        return started[-1]

    yield start
    for one in started:
        for process in [*one.ranks().values(), one.process] if one.process.is_running() else []:
            process.kill()


def held(launch: Callable[..., Launched], launcher: str, project: Path, go_on: Path) -> tuple[Launched, dict[int, Any]]:
    """A launch whose main rank waits before its third step."""
    found = launch(launcher, project, [*JOB, ON_CPU], hold_at_step={0: {"step": 3, "until": str(go_on)}})
    found.wait_until(Path(f"{go_on}.held").exists)
    return found, found.ranks()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_ranks_train_as_one_process_does(
    launch: Callable[..., Launched],
    launcher: str,
    new_project: NewProject,
    alone: Path,
) -> None:
    project = new_project()
    found = launch(launcher, project, [*JOB, ON_CPU])
    assert found.process.wait(300) == 0, found.said()
    assert images(project) == images(alone)
    assert max(abs(one - other) for one, other in zip(losses(project), losses(alone), strict=True)) < LOSS_BOUND
    assert farthest_weights(alone, project) < WEIGHT_BOUND
    assert found.said().count("Loading the base") == 1
    assert record(project / "runs" / RUN)["device"].startswith("2 × ")


@pytest.mark.parametrize(("launcher", "code"), [("--gpus", 143), ("torchrun", None)])
def test_a_signal_to_the_launcher_ends_all_with_a_checkpoint_and_one_process_goes_on(
    launch: Callable[..., Launched],
    launcher: str,
    code: int | None,
    new_project: NewProject,
    alone: Path,
    server: ForkServer,
    tmp_path: Path,
) -> None:
    project, go_on = with_images(new_project(), alone), tmp_path / "go on"
    found, ranks = held(launch, launcher, project, go_on)
    found.process.send_signal(signal.SIGTERM)
    found.wait_until(Path(f"{go_on}.heard").exists)
    go_on.touch()
    ended = found.ended(list(ranks.values()))
    assert ended != 0 and code in (None, ended)
    assert "Stopped after step 3 of 6; a checkpoint is written." in found.said()
    assert record(project / "runs" / RUN)["state"] == "interrupted"
    server.run(project, "train", "--resume").check(0)
    assert farthest_weights(alone, project) < WEIGHT_BOUND


@pytest.mark.parametrize(("launcher", "killed"), [("--gpus", 0), ("--gpus", 1), ("torchrun", 1), ("accelerate", 1)])
def test_a_rank_that_is_killed_ends_all(
    launch: Callable[..., Launched],
    launcher: str,
    killed: int,
    new_project: NewProject,
    alone: Path,
    server: ForkServer,
    tmp_path: Path,
) -> None:
    project, go_on = with_images(new_project(), alone), tmp_path / "go on"
    found, ranks = held(launch, launcher, project, go_on)
    ranks[killed].kill()
    go_on.touch()
    code = found.ended(list(ranks.values()))
    assert code == 5 if launcher == "--gpus" else code != 0
    state, said = record(project / "runs" / RUN)["state"], found.said()
    if killed == 1 and "One of 2 processes is gone" not in said:
        # A launcher may end the rank that is left before it has noticed; it then names the one that was killed.
        assert ("Process 1 ended with -9" if launcher == "--gpus" else "SIGKILL") in said and state == "interrupted"
    elif killed == 1:
        assert "One of 2 processes is gone" in said and state == "failed"
    else:
        assert "Process 0 ended with -9" in said
    server.run(project, "train", "--resume").check(0)
    assert farthest_weights(alone, project) < WEIGHT_BOUND


@pytest.mark.parametrize("error", ["gpu", "memory"])
@pytest.mark.parametrize("launcher", ["--gpus", "torchrun"])
def test_an_error_on_one_rank_ends_all(
    launch: Callable[..., Launched],
    launcher: str,
    error: str,
    new_project: NewProject,
    alone: Path,
) -> None:
    project = with_images(new_project(), alone)
    found = launch(launcher, project, [*JOB, ON_CPU], fail_at_step={1: {"step": 3, "error": error}})
    found.wait_until(lambda: len(found.ranks()) == 2)
    ranks = list(found.ranks().values())
    found.wait_until(lambda: len(losses(project)) == 2)
    code = found.ended(ranks)
    assert code == 5 if launcher == "--gpus" else code != 0
    assert ("device lost (in process 1)" if error == "gpu" else "Out of memory") in found.said()
    assert record(project / "runs" / RUN)["state"] == "failed"
    assert [event["step"] for event in events(project / "runs" / RUN) if "loss" in event][-1] == 2


def test_ranks_whose_launcher_is_killed_end_with_a_checkpoint(
    launch: Callable[..., Launched],
    new_project: NewProject,
    alone: Path,
    tmp_path: Path,
) -> None:
    project, go_on = with_images(new_project(), alone), tmp_path / "go on"
    found, ranks = held(launch, "--gpus", project, go_on)
    threads = {rank: process.num_threads() for rank, process in ranks.items()}
    found.process.kill()
    end = time.monotonic() + 300
    # The thread that looks for the launcher ends once it has sent its own process the signal.
    while any(process.num_threads() >= threads[rank] for rank, process in ranks.items()):
        assert time.monotonic() < end
        time.sleep(0.05)
    go_on.touch()
    found.ended(list(ranks.values()))
    assert record(project / "runs" / RUN)["state"] == "interrupted"


def test_a_number_of_gpus_that_is_not_the_launchers_is_refused(server: ForkServer, new_project: NewProject) -> None:
    main, other = launched(server, new_project(), [*JOB, ON_CPU, "--gpus", 3], 2)
    assert "--gpus 3, and a launcher started 2 processes" in main.wait().check(2).err
    other.wait().check(2)
