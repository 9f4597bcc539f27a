"""Pictures written while the next are drawn: packing a PNG takes a processor longer than a small picture's step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class ImageWriter:
    """Runs writing in a thread of its own, in order; leaving it waits for the last picture.

    What a write raised is raised at the next `submit`, or on leaving.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
        self._waiting: list[Future[Any]] = []

    def submit(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Writes later; the arguments must not change meanwhile."""
        # A disk slower than the drawing must not let pictures pile up in memory.
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= 8):
            self._waiting.pop(0).result()
        self._waiting.append(self._thread.submit(write, *arguments))

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            for one in self._waiting:
                one.result()
