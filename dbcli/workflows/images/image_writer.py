"""Images written while the next are sampled: packing a PNG takes a CPU longer than a small image's step."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST_WAITING = 8


@contextmanager
def image_writer() -> Iterator[Callable[..., None]]:
    """Gives a function that runs `write(*arguments)` in a thread of its own, in order; leaving waits for the last one.

    The arguments must not change meanwhile. What a write raised is raised at a later call, or on leaving.
    """
    waiting: deque[Future[Any]] = deque()

    def submit(write: Callable[..., Any], *arguments: Any) -> None:
        # A disk slower than the sampling must not let images pile up in memory.
        while waiting and (waiting[0].done() or len(waiting) >= MOST_WAITING):
            waiting.popleft().result()
        waiting.append(thread.submit(write, *arguments))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as thread:
        yield submit
    for one in waiting:
        one.result()
