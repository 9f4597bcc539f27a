"""Work that may never come to an end, such as a question to the hub, waited for no longer than it is worth."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

Answer = TypeVar("Answer")


def within(seconds: float, work: Callable[[], Answer]) -> Answer:
    """The result of `work`, or TimeoutError after so many seconds.

    The clients retry for half a minute and a name server may never answer, so the wait is bounded from
    outside; a thread that is still waiting does not keep the program alive.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # raised in the caller's thread
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="deadline").start()
    if not wait([answer], timeout=seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answer.result()
