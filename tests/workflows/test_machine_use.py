"""Commands that compute on one machine at the same time tell of each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dbcli.workflows import machine_use
from dbcli.workflows.machine_use import computing
from dbcli.workflows.progress import Silence

OTHER = """
import sys
from dbcli.workflows.machine_use import computing
from dbcli.workflows.progress import Silence
sys.argv = ["dreambooth", "train", "--subject", "dog"]
with computing("the run 0001-dog", Silence()):
    print("computing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_use, "_reported", [])


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process of this machine that computes until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        yield process


def notes_of(what: str) -> list[str]:
    progress = Silence()
    with computing(what, progress), computing("a part of it", progress):
        return progress.notes


def test_a_second_command_says_that_another_computes_once(other: subprocess.Popen[str]) -> None:
    (note,) = notes_of("the run 0002-dog")
    assert note.startswith("Another run is computing on this machine, so both take longer: process")
    assert f"process {other.pid} (dreambooth train --subject dog)" in note
    assert notes_of("the run 0002-dog") == []


@pytest.mark.parametrize("end", ["well", "killed"])
def test_one_that_has_ended_however_is_not_told_of(other: subprocess.Popen[str], end: str) -> None:
    if end == "killed":
        other.kill()
    else:
        other.communicate("")
    other.wait()
    assert notes_of("the run 0002-dog") == []


def test_where_no_note_can_be_kept_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert notes_of("the run 0002-dog") == []


def test_another_machine_whose_name_begins_the_same_is_left_alone() -> None:
    with computing("the run 0001-dog", Silence()):
        (own,) = machine_use._ours
    theirs = own.with_name(own.name.replace(f"-{os.getpid()}.lock", "-2-99999.lock"))
    theirs.touch()
    assert notes_of("the run 0002-dog") == []
    assert theirs.exists()
    theirs.unlink()
