"""SIGINT and SIGTERM as a wish to stop at the next safe point; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dbcli.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Callable: True once a signal came. `exit_code` is what the process then ends with."""

    def __init__(self) -> None:
        self._signal: int | None = None
        # Called with the number of the first signal: other processes that work for this one hear of it.
        self.on_signal: Callable[[int], None] = lambda number: None

    def __call__(self) -> bool:
        return self._signal is not None

    @property
    def number(self) -> int:
        """The signal that came, 0 for none."""
        return self._signal or 0

    @property
    def exit_code(self) -> int:
        return 128 + (self._signal or signal.SIGINT)

    def raise_if_stopped(self, message: str, hint: str | None = None) -> None:
        """Raises Interrupted, with the signal's exit code, if a signal came."""
        if self():
            raise Interrupted(message, hint, self.exit_code)

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler. Files are written so that they may be cut off anywhere: a second signal is obeyed."""
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        self.on_signal(number)

    def hear(self, number: int) -> None:
        """Takes over a wish that another process received; what is a second signal there is none here."""
        self._signal = self._signal or number


@contextmanager
def listening() -> Iterator[StopSignal]:
    """A StopWish that hears the process's signals while the block runs; in other threads it hears nothing."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    except Interrupted as interrupted:
        interrupted.exit_code = stop.exit_code
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
