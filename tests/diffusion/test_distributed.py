"""How ranks agree: alone in this process, and as real processes that a launcher's variables bring together."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dbcli.diffusion.distributed import SINGLE, ProcessGroup, portable
from dbcli.errors import DiskFull, Interrupted

ROOT = Path(__file__).resolve().parents[2]


class _Awkward(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def test_a_single_process_agrees_with_itself() -> None:
    assert SINGLE.gather("a") == ["a"]
    assert SINGLE.on_main(lambda: 3) == 3
    assert SINGLE.split(range(5), 2) == {0, 1, 2, 3, 4}
    with pytest.raises(DiskFull), SINGLE.together():
        raise DiskFull("full")


def test_a_single_process_leaves_gradients_as_they_are() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    with SINGLE.sum_gradients([parameter]):
        parameter.grad = torch.tensor([1.0, 2.0])
    assert torch.equal(parameter.grad, torch.tensor([1.0, 2.0]))


def test_images_are_split_by_whole_batches() -> None:
    ranks = [ProcessGroup(0, 2), ProcessGroup(1, 2)]
    # Batches of two: 0 1 | 2 3 | 4 5 | 6, of which 3 and 4 are there already.
    assert [group.split([0, 1, 2, 5, 6], 2) for group in ranks] == [{0, 1, 5}, {2, 6}]


def test_an_error_for_other_processes_is_of_its_kind() -> None:
    full = portable(DiskFull("The disk is full.", hint="free some"), 2)
    assert isinstance(full, DiskFull)
    assert (full.message, str(full), full.hint) == (
        "The disk is full. (in process 2)",
        "The disk is full. (in process 2)",
        "free some",
    )
    assert full.exit_code == 5
    stopped = portable(Interrupted("Stopped.", exit_code=143), 1)
    assert isinstance(stopped, Interrupted)
    assert (stopped.message, stopped.exit_code) == ("Stopped.", 143)
    assert isinstance(portable(torch.OutOfMemoryError("CUDA out of memory"), 1), torch.OutOfMemoryError)
    bug = portable(ValueError("odd"), 3)
    assert isinstance(bug, ValueError)
    assert str(bug) == "odd (in process 3)"
    assert "ValueError: odd" in bug.__notes__[0]
    ours, theirs = multiprocessing.Pipe()
    ours.send(bug)
    assert theirs.recv().__notes__ == bug.__notes__


def test_an_error_that_cannot_be_pickled_keeps_its_words() -> None:
    assert str(portable(_Awkward("one ", "two"), 1)) == "_Awkward: one two (in process 1)"


def ranks(script: str, size: int) -> list[str]:
    """What each of `size` processes prints that run a script as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    environment |= {name: str(value) for name, value in place.items()}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", f"from dbcli.diffusion.distributed import *\n{script}"],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    return [process.communicate(timeout=120)[0].strip() for process in started]


AGREEING = """
import torch
from dbcli.errors import DiskFull

def told(group, work):
    try:
        with group.together():
            return work()
    except Exception as error:
        return f"{type(error).__name__} {error}"

def fails_on(group, rank):
    if group.rank == rank:
        raise DiskFull("full")
    return group.gather("went on")  # meets the fault of the other's block

with joined() as group:
    found = [group.gather(group.rank), group.on_main(lambda: f"by {group.rank}")]
    found.append(told(group, lambda: fails_on(group, 1)))
    found.append(told(group, lambda: fails_on(group, 0)))
    found.append(told(group, lambda: group.on_main(lambda: 1 // 0)))
    weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
    with group.sum_gradients(weights):
        weights[0].grad = torch.tensor([1.0, 2.0, 3.0]) * (group.rank + 1)
        if group.rank == 1:
            weights[1].grad = torch.ones(3)
    found.append([None if one.grad is None else one.grad.tolist() for one in weights])
    print(found, file=sys.__stdout__)
"""


def test_ranks_agree_on_values_errors_and_gradients() -> None:
    main, other = ranks(AGREEING, 2)
    assert main == repr(
        [
            [0, 1],
            "by 0",
            "DiskFull full (in process 1)",
            "DiskFull full",
            "ZeroDivisionError integer division or modulo by zero",
            [[3.0, 6.0, 9.0], [1.0, 1.0, 1.0], None],
        ]
    )
    assert other == repr(
        [
            [0, 1],
            "by 0",
            "DiskFull full",
            "DiskFull full (in process 0)",
            "ZeroDivisionError integer division or modulo by zero (in process 0)",
            [[3.0, 6.0, 9.0], [1.0, 1.0, 1.0], None],
        ]
    )


LOST = """
import os, signal
with joined() as group:
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        group.gather(None)
    except ProcessLost as error:
        print(error.message.split(":")[0], error.exit_code)
"""


def test_a_rank_that_vanishes_is_noticed() -> None:
    assert ranks(LOST, 2) == ["One of 2 processes is gone 5", ""]


LEFT = """
import psutil
with joined() as group:
    import torch.distributed.nn
    group.gather(None)
    within = psutil.Process().num_threads()
print(psutil.Process().num_threads() < within, file=sys.__stdout__)
"""


def test_the_threads_of_a_group_end_with_it() -> None:
    # One that outlives it may meet the end of the interpreter: "terminate called without an active exception".
    assert ranks(LEFT, 2) == ["True", "True"]
