"""How long work tells of itself, whoever listens: a terminal, a log, a test."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Stage(Protocol):
    """A stretch of work with a known length."""

    def advance(self, amount: int = 1) -> None:
        """Moves the bar on by so many parts."""

    def complete(self, amount: int = 1) -> None:
        """Counts so many more of what has several parts: an image that is sampled to its end."""

    def tell(self, text: str) -> None:
        """Shows a few words beside the bar: losses, memory."""

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one training step (`subject_loss` is among them), or of a probe after it, for a log."""


class Progress(Protocol):
    """What a workflow reports to."""

    @contextmanager
    def stage(self, title: str, total: int, parts: int = 1) -> Iterator[Stage]:
        """A bar while the block runs. What is counted may have several `parts`, as an image has its sampler's steps:
        then `advance` moves the bar by a part, and `complete` counts.
        """
        ...

    def note(self, text: str) -> None:
        """One line a person should read."""

    def warn(self, text: str) -> None:
        """One line a person must not miss."""


class Titled:
    """A Progress whose bars begin with the same words: "[2/7] Training 0003-dog"."""

    def __init__(self, progress: Progress, prefix: str) -> None:
        self._progress, self._prefix = progress, prefix

    @contextmanager
    def stage(self, title: str, total: int, parts: int = 1) -> Iterator[Stage]:
        with self._progress.stage(f"{self._prefix} {title}", total, parts) as stage:
            yield stage

    def note(self, text: str) -> None:
        self._progress.note(text)

    def warn(self, text: str) -> None:
        self._progress.warn(text)


class _SilentStage:
    def advance(self, amount: int = 1) -> None:
        return

    def complete(self, amount: int = 1) -> None:
        return

    def tell(self, text: str) -> None:
        return

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        return


class Silence:
    """A Progress that keeps its notes and warnings for whoever asks, and shows nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    @contextmanager
    def stage(self, title: str, total: int, parts: int = 1) -> Iterator[Stage]:
        yield _SilentStage()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
