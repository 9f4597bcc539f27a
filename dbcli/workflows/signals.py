"""SIGINT and SIGTERM ask a command to stop at the next safe point; a second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Callable: True once a signal came. `exit_code` is what the process then ends with."""

    def __init__(self, group: ProcessGroup = SINGLE) -> None:
        self._group = group
        self._signal: int | None = None

    def __call__(self) -> bool:
        return self._signal is not None

    def anywhere(self) -> bool:
        """Whether a signal came to any rank of the group, all of which have to ask."""
        for number in self._group.gather(self._signal):
            self._signal = self._signal or number
        return self()

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self._signal or signal.SIGINT)

    def raise_if_stopped(self, message: str, hint: str | None = None) -> None:
        """Raises Interrupted, with the signal's exit code, if a signal came to any rank."""
        if self.anywhere():
            raise Interrupted(message, hint, self.exit_code)

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler. Files are written so that they may be cut off anywhere: a second signal is obeyed."""
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number


@contextmanager
def listening(group: ProcessGroup = SINGLE) -> Iterator[StopSignal]:
    """A StopSignal that hears the process's signals while the block runs; in other threads it hears nothing."""
    stop = StopSignal(group)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        with group.together():
            yield stop
    except Interrupted as interrupted:
        stop.anywhere()
        interrupted.exit_code = stop.exit_code
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
