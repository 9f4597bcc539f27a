"""Questions on a terminal, at which a signal is always heard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer

WAKE_SECONDS = 0.25


def answer_to(question: str, proposal: str | None) -> str:
    """What is typed, without the spaces around it; an empty line takes the proposal."""
    with woken_for_signals():
        answer: str = typer.prompt(question, default=proposal, err=True)
    return answer.strip()


def agrees_to(question: str) -> bool:
    """Whether a person says yes; an empty line is a no."""
    with woken_for_signals():
        return typer.confirm(question, err=True)


@contextmanager
def woken_for_signals() -> Iterator[None]:
    """Interrupts the wait for a line now and then, so that Python runs the handlers of signals that came meanwhile.

    A signal that comes between Python's last look for one and the system call that reads would otherwise be obeyed only
    after Enter. Windows has no such timer, and other threads cannot set one.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, WAKE_SECONDS, WAKE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
