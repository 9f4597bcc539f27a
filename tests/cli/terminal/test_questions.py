"""A signal at a question is obeyed, also where it does not interrupt the wait for the answer."""

from __future__ import annotations

import os
import pty
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from dbcli.cli.terminal.questions import agrees_to, answer_to

PATIENCE_SECONDS = 60.0
# Where the kernel does not tell what a thread waits for, it has long begun to wait by then.
REACHED_SECONDS = 10.0


class _Heard(Exception):
    pass


def _hear(number: int, frame: FrameType | None) -> None:
    raise _Heard


def _reads(thread: int) -> bool:
    """Whether a thread is in the system call that waits for a line."""
    return Path(f"/proc/self/task/{thread}/wchan").read_text() in ("wait_woken", "n_tty_read")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """This process asks on a terminal; the fixture is the end at which a person types."""
    person, program = pty.openpty()
    # Where input() is to read as on a terminal, files 0 and 1 have to be one.
    kept = os.dup(0), os.dup(1)
    os.dup2(program, 0)
    os.dup2(program, 1)
    with os.fdopen(os.dup(program), "r") as reading, os.fdopen(os.dup(program), "w") as writing:
        monkeypatch.setattr(sys, "stdin", reading)
        monkeypatch.setattr(sys, "stdout", writing)
        monkeypatch.setattr(sys, "stderr", writing)
        yield person
    for number, file in enumerate(kept):
        os.dup2(file, number)
        os.close(file)
    os.close(person)
    os.close(program)


@pytest.fixture
def unheard_signal() -> Iterator[threading.Thread]:
    """SIGINT that reaches another thread while this one waits for a line: nothing interrupts the wait."""
    before = signal.signal(signal.SIGINT, _hear)
    main, done = threading.get_native_id(), threading.Event()

    def send() -> None:
        deadline = time.monotonic() + REACHED_SECONDS
        while not _reads(main) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        # The signal needs a thread that takes it.
        done.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=send)
    thread.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    yield thread
    done.set()
    thread.join()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads in /proc what a thread waits for")
@pytest.mark.timeout(PATIENCE_SECONDS, method="thread")  # a question takes over the timer of the other method
def test_a_signal_that_does_not_interrupt_the_wait_is_obeyed(terminal: int, unheard_signal: threading.Thread) -> None:
    with pytest.raises(_Heard):
        answer_to("Which folder", None)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.timeout(PATIENCE_SECONDS, method="thread")
def test_a_line_is_an_answer_and_an_empty_one_takes_the_proposal(terminal: int) -> None:
    os.write(terminal, b" here  \n\ny\n\n")
    assert answer_to("Which folder", None) == "here"
    assert answer_to("Which folder", "there") == "there"
    assert agrees_to("Remove it?")
    assert not agrees_to("Remove it?")
