"""SIGINT and SIGTERM while no work is under way that could be finished first: one stops, a second ends at once."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS_UNTIL_TOLD_AGAIN = 0.05


class StopNow(BaseException):
    """A signal while nothing is under way that could be finished first.

    No Exception, so that no library's `except Exception` takes it for a fault of its own and goes on.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """While the block runs the first signal raises StopNow; a second one, or one after the block, ends the process."""
    report = sys.unraisablehook

    def tell_again(dropped: "sys.UnraisableHookArgs") -> None:
        # Python goes on after an exception in a destructor or a weak reference's callback, which a signal may fall
        # into as into any other code: nothing would stop.
        if not isinstance(dropped.exc_value, StopNow):
            report(dropped)
            return
        _hear(_stop_now)
        again = threading.Timer(SECONDS_UNTIL_TOLD_AGAIN, _thread.interrupt_main, (dropped.exc_value.number,))
        again.daemon = True
        again.start()

    sys.unraisablehook = tell_again
    try:
        _hear(_stop_now)
        yield
    finally:
        _hear(_end_at_once)
        sys.unraisablehook = report


def _hear(handler: Callable[[int, FrameType | None], None]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)


def _stop_now(number: int, frame: FrameType | None) -> None:
    # While the first signal is obeyed a second one could come at any place: it ends the process there and then.
    _hear(_end_at_once)
    raise StopNow(number)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
