"""Ranks of one command: the result of a single process, nothing drawn twice, and a common end whatever happens."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.reliability import conftest
from tests.reliability.conftest import IN_SIZES, ON_CPU, RUN
from tests.reliability.processes import Ended, ForkServer, Process, events, record

pytestmark = pytest.mark.timeout(600)
NewProject = Callable[[], Path]
# One set of class images, whose batches the processes share out.
JOB = [*conftest.JOB, "--set=prior.template=a photo of a {class}"]
SCORE = ("eval", "--judge", "tiny", "--suite", "demo", "--count", 2)
# The order in which rows of a batch are summed is all that differs; AdamW's step is at most its rate, 1e-4.
LOSS_BOUND, WEIGHT_BOUND = 2e-6, 1e-6
FULL = [
    *("train", "--subject", "dog", "--method", "full", "--steps", 4, "--set=train.text_encoder=true"),
    *("--set=prior.images=2", "--set=prior.steps=2", "--set=prior.batch_size=2", "--set=draw.steps=2"),
    "--set=train.checkpoint_every=2",
]


@pytest.fixture(scope="module")
def alone(server: ForkServer, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one process did JOB."""
    project = Path(shutil.copytree(template, tmp_path_factory.mktemp("alone") / "project"))
    server.run(project, *JOB, ON_CPU).check(0)
    return project


def launched(
    server: ForkServer, project: Path, words: list[Any], size: int, **sabotage: dict[int, dict[str, Any]]
) -> list[Process]:
    """Starts a command line `size` times, as torchrun would; `sabotage` says which function spoils which process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        environment = {name: str(value) for name, value in place.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        spoilt = {name: ranks[rank] for name, ranks in sabotage.items() if rank in ranks}
        started.append(server.start(project, *words, environment=environment, **spoilt))
    return started


def held_at_the_third_step(server: ForkServer, project: Path, go_on: Path) -> list[Process]:
    """Two processes that train, the first of them waiting before its third step until a file is there."""
    hold = {0: {"step": 3, "until": str(go_on)}}
    processes = launched(server, project, [*JOB, ON_CPU], 2, hold_at_step=hold)
    processes[0].wait_until(Path(f"{go_on}.held").exists)
    return processes


def ended(processes: list[Process]) -> list[Ended]:
    return [process.wait() for process in processes]


def losses(project: Path) -> list[float]:
    return [event["loss"] for event in events(project / "runs" / RUN) if "loss" in event]


def farthest_weights(one: Path, other: Path) -> float:
    """The largest difference between two projects' results."""
    files = sorted((one / "runs" / RUN / "weights").rglob("*.safetensors"))
    assert files
    differences = []
    for file in files:
        left, right = load_file(file), load_file(other / file.relative_to(one))
        assert left.keys() == right.keys()
        differences += [float((left[name] - right[name]).abs().max()) for name in left]
    return max(differences)


def images(project: Path) -> dict[str, bytes]:
    folder = project / "reg"
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.png")}


def with_images(project: Path, other: Path) -> Path:
    """The project with the class images that another one drew."""
    shutil.copytree(other / "reg", project / "reg", dirs_exist_ok=True)
    return project


def recorded(project: Path) -> list[int]:
    lines = next((project / "reg").rglob("images.jsonl")).read_text().splitlines()
    return sorted(json.loads(line)["index"] for line in lines)


def test_two_processes_draw_train_and_score_as_one_does(
    server: ForkServer, new_project: NewProject, alone: Path, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    project, counted = new_project(), tmp_path / "drawn"
    both = {rank: {"path": str(counted)} for rank in (0, 1)}
    main, other = ended(launched(server, project, [*JOB, ON_CPU], 2, count_drawn=both))
    main.check(0)
    other.check(0)
    assert (other.out, other.err) == ("", "")
    assert images(project) == images(alone)
    assert recorded(project) == [0, 1, 2]
    # Batches of two: images 0 and 1 by one process, 2 by the other.
    assert sorted(Counter(counted.read_text().split()).values()) == [1, 2]
    apart = max(abs(one - other) for one, other in zip(losses(project), losses(alone), strict=True))
    farthest = farthest_weights(alone, project)
    figures(f"LoRA, two processes: losses {apart:.1e} apart, weights {farthest:.1e}")
    assert apart < LOSS_BOUND
    assert farthest < WEIGHT_BOUND
    assert record(project / "runs" / RUN)["device"].startswith("2 × ")

    # The same run's pictures, drawn by two and then by one.
    counted.unlink()
    spread = ended(launched(server, project, [*SCORE], 2, count_drawn=both))
    assert [one.check(0).code for one in spread] == [0, 0]
    shared = {file.name: file.read_bytes() for file in (project / "runs" / RUN / "eval").rglob("images/*.png")}
    by_process = Counter(counted.read_text().split())
    assert len(by_process) == 2
    assert sum(by_process.values()) == len(shared)
    shutil.rmtree(project / "runs" / RUN / "eval")
    server.run(project, *SCORE).check(0)
    assert shared == {file.name: file.read_bytes() for file in (project / "runs" / RUN / "eval").rglob("images/*.png")}


@pytest.mark.parametrize("sets", [(), (IN_SIZES,)], ids=["squares", "sizes"])
def test_three_processes_share_two_rows_as_one_takes_them(
    server: ForkServer, new_project: NewProject, figures: Callable[[str], None], sets: tuple[str, ...]
) -> None:
    # One of three has nothing to do at each step, and all weights learn.
    one, several, job = new_project(), new_project(), [*FULL, ON_CPU, *sets]
    server.run(one, *job).check(0)
    assert [process.check(0).code for process in ended(launched(server, several, job, 3))] == [0, 0, 0]
    apart = max(abs(left - right) for left, right in zip(losses(one), losses(several), strict=True))
    farthest = farthest_weights(one, several)
    figures(f"full, three processes: losses {apart:.1e} apart, weights {farthest:.1e}")
    assert apart < LOSS_BOUND
    assert farthest < WEIGHT_BOUND


def test_a_signal_to_another_process_stops_the_first(
    server: ForkServer, new_project: NewProject, alone: Path, tmp_path: Path
) -> None:
    project, go_on = with_images(new_project(), alone), tmp_path / "go on"
    main, other = held_at_the_third_step(server, project, go_on)
    other.signal(signal.SIGTERM)
    go_on.touch()
    main.wait().check(143)
    other.wait().check(0)
    assert [event["step"] for event in events(project / "runs" / RUN) if "loss" in event] == [1, 2, 3]
    assert record(project / "runs" / RUN)["state"] == "interrupted"


def test_a_signal_while_two_draw_class_images_keeps_what_both_drew(server: ForkServer, new_project: NewProject) -> None:
    # Batches of two: the main rank is stopped in its second one, images 4 and 5, and the other draws on.
    project, words = new_project(), [*JOB, ON_CPU, "--set=prior.images=8"]
    main, other = ended(launched(server, project, words, 2, stop_in={0: {"phase": "class images"}}))
    assert "6 of 8 are kept" in main.check(130).err
    other.check(0)
    assert recorded(project) == [0, 1, 2, 3, 6, 7]


def test_a_fault_of_another_process_ends_the_first_with_its_words(
    server: ForkServer, new_project: NewProject, alone: Path
) -> None:
    project = with_images(new_project(), alone)
    broken = {1: {"step": 3, "error": "gpu"}}
    main, _ = ended(launched(server, project, [*JOB, ON_CPU], 2, fail_at_step=broken))
    main.check(5)
    assert "CUDA error: device lost (in process 1)" in main.err
    assert record(project / "runs" / RUN)["state"] == "failed"


def test_memory_that_is_full_in_another_process_makes_all_fall_back(
    server: ForkServer, new_project: NewProject, alone: Path
) -> None:
    project = with_images(new_project(), alone)
    full = {1: {"step": 3, "error": "memory", "recomputing": False}}
    main, other = ended(launched(server, project, [*JOB, ON_CPU], 2, fail_at_step=full))
    main.check(0)
    other.check(0)
    assert [one["step"] for one in record(project / "runs" / RUN)["fallbacks"]] == [2]
    assert farthest_weights(alone, project) < WEIGHT_BOUND


def test_several_processes_fall_back_to_no_backward_pass_that_updates_before_the_sum(
    server: ForkServer, new_project: NewProject
) -> None:
    project = new_project()
    full = {rank: {"step": 3, "error": "memory", "fused": False} for rank in (0, 1)}
    job = [*FULL, ON_CPU, "--set=prior.enabled=false"]
    main, other = ended(launched(server, project, job, 2, fail_at_step=full))
    other.check(0)
    assert "this run has no smaller recipe" in main.check(5).err
    found = record(project / "runs" / RUN)
    assert found["state"] == "failed" and found["fallbacks"]
    assert not [one["after"] for one in found["fallbacks"] if "fused" in one["after"] or "bf16" in one["after"]]


def test_a_process_that_is_killed_ends_the_others(
    server: ForkServer, new_project: NewProject, alone: Path, tmp_path: Path
) -> None:
    project, go_on = with_images(new_project(), alone), tmp_path / "go on"
    main, other = held_at_the_third_step(server, project, go_on)
    other.signal(signal.SIGKILL)
    assert other.wait().code == -signal.SIGKILL
    go_on.touch()
    told = main.wait().check(5)
    assert "One of 2 processes is gone" in told.err
    assert f" train --resume {RUN}" in told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", 2], "this machine has none"),
        (["--gpus", 2, "--set=train.device=cuda:1"], "one device, and 2 processes need one each"),
        (
            ["--gpus", 2, ON_CPU, "--set=train.fused_backward=true", "--set=train.gradient_clip=0"],
            "train.fused_backward changes weights before",
        ),
    ],
)
def test_what_several_cannot_do_is_said_before_a_run_is_made(
    server: ForkServer, new_project: NewProject, words: list[Any], said: str
) -> None:
    project = new_project()
    job = [word for word in FULL if word != "--set=train.checkpoint_every=2"]
    assert said in server.run(project, *job, *words).check(2).err
    assert not (project / "runs" / RUN).exists()


def test_memory_that_is_full_on_one_rank_without_a_smaller_recipe_ends_all(
    server: ForkServer, new_project: NewProject, alone: Path
) -> None:
    project = with_images(new_project(), alone)
    main, other = ended(launched(server, project, [*JOB, ON_CPU], 2, fail_at_step={1: {"step": 3, "error": "memory"}}))
    other.check(0)
    assert "Out of memory" in main.check(5).err
    assert record(project / "runs" / RUN)["state"] == "failed"


def test_a_run_that_one_process_began_two_go_on_with(server: ForkServer, new_project: NewProject, alone: Path) -> None:
    project = with_images(new_project(), alone)
    server.run(project, *JOB, ON_CPU, stop_after={"step": 3}).check(143)
    assert [one.check(0).code for one in ended(launched(server, project, ["train", "--resume"], 2))] == [0, 0]
    assert farthest_weights(alone, project) < WEIGHT_BOUND
