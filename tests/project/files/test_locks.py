from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbcli.errors import Interrupted, LockHeld
from dbcli.project.files.locks import Waiting, hold, is_held

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys
from pathlib import Path
from dbcli.project.files.locks import hold
with hold(Path(sys.argv[1]), "the run 0003-dog"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def test_the_second_holder_is_told_within_two_seconds_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "runs" / ".lock"
    with another_process_holding(path) as process:
        began = time.monotonic()
        with pytest.raises(LockHeld) as caught, hold(path, "the run 0003-dog"):
            pass
        assert time.monotonic() - began < 60
        assert caught.value.exit_code == 6
        assert "the run 0003-dog" in caught.value.message
        assert f"process {process.pid} " in caught.value.message
        assert is_held(path)


def test_a_killed_holder_gives_the_lock_back_at_once(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with another_process_holding(path) as process:
        process.kill()
        process.wait()
        with hold(path, "the run", wait_seconds=0):
            assert is_held(path)
    assert not is_held(path)


def test_one_who_waits_is_told_for_whom_once_and_takes_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path, told, asked = tmp_path / ".lock", [], []
    with another_process_holding(path) as process:

        def should_stop() -> bool:
            asked.append(is_held(path))
            if len(asked) == 2:
                process.kill()
                process.wait()
            return False

        with hold(path, "the class images", waiting=Waiting(told.append, should_stop)):
            assert is_held(path)
    assert asked[:2] == [True, True]
    (line,) = told
    assert f"process {process.pid} " in line and "the class images" in line and "waiting" in line
    assert not is_held(path)


def test_one_who_waits_can_be_told_to_stop(tmp_path: Path) -> None:
    path, told = tmp_path / ".lock", []
    with another_process_holding(path):
        waiting = Waiting(told.append, lambda: bool(told))
        with pytest.raises(Interrupted, match="waiting for"), hold(path, "the class images", waiting=waiting):
            pass
        assert is_held(path)


def test_a_lock_is_free_after_an_error_inside_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(RuntimeError), hold(path, "the run"):
        raise RuntimeError
    assert not is_held(path)
    assert os.listdir(tmp_path) == [".lock"]


def test_one_process_does_not_hold_a_lock_twice(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with hold(path, "the run"):
        with pytest.raises(LockHeld, match=f"process {os.getpid()} "), hold(path, "the run", wait_seconds=0):
            pass
        assert is_held(path)


def test_a_lock_that_was_never_taken_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / ".lock")
    assert os.listdir(tmp_path) == []


def test_what_a_holder_left_that_was_killed_while_naming_itself_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    half, others = tmp_path / "..lock.holder.json.0a1b2c3d.tmp", tmp_path / ".image.png.0a1b2c3d.tmp"
    for left in (half, others):
        left.write_text("{")
    with hold(path, "the run 0003-dog"):
        assert not half.exists()
    assert others.exists()  # what another lock guards
