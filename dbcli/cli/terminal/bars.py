"""How long work is shown: a bar, and under it the numbers of training with a small curve of the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
# Beside the description: bar, counts and time, with a space between each.
BESIDE_COLUMNS, LEAST_DESCRIPTION = 50, 12
WIDEST_CURVE, NARROWEST_CURVE = 40, 8


class Curve:
    """The course of a loss in bounded memory: means of equally long stretches, halved in number when too many."""

    MOST = 512

    def __init__(self) -> None:
        self._means: list[float] = []
        self._stretch, self._sum, self._count = 1, 0.0, 0

    def add(self, value: float) -> None:
        if value != value or abs(value) == float("inf"):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self._stretch:
            self._means.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0
        if len(self._means) == self.MOST:
            self._means = [(one + other) / 2 for one, other in zip(self._means[::2], self._means[1::2], strict=True)]
            self._stretch *= 2

    @property
    def is_empty(self) -> bool:
        """Whether no loss was ever measured."""
        return not self._means and not self._count

    def shown(self, width: int) -> str:
        """At most `width` blocks from the lowest mean to the highest; nothing before there are two."""
        if len(self._means) < 2 or width < 2:
            return ""
        return sparkline(_shortened(self._means, width))


def sparkline(values: Sequence[float]) -> str:
    """One block a value, the lowest at the bottom: 1, 2, 8 gives "▁▂█"."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in values)


class Bar:
    """One bar with words and a curve under it."""

    def __init__(self, bars: Bars, task: TaskID, total: int, parts: int) -> None:
        self._bars, self._task, self._total, self._parts = bars, task, total, parts
        self._done, self._counted = 0, 0

    def advance(self, amount: int = 1) -> None:
        # A bar is never fuller than full, whatever a sampler asks of its model in one step.
        self._done = min(self._done + amount, self._total * self._parts)
        if self._parts == 1:
            self._counted = self._done
        self._bars.update(self._task, completed=self._done, counted=self._counted)

    def complete(self, amount: int = 1) -> None:
        self._counted = min(self._counted + amount, self._total)
        self._done = max(self._done, self._counted * self._parts)
        self._bars.update(self._task, completed=self._done, counted=self._counted)

    def tell(self, text: str) -> None:
        self._bars.update(self._task, details=text)

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        if "subject_loss" in values:
            self._bars.curve.add(values["subject_loss"])

    def end(self) -> None:
        """What was said of the moment is gone with it; the numbers of the last training step stay."""
        if self._bars.curve.is_empty:
            self.tell("")


class TimeColumn(ProgressColumn):
    """How long is left, or how long it took, each by name; nothing before anything is known."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"took {clock(task.finished_time or 0)}", style="progress.elapsed")
        left = task.time_remaining
        return Text("" if left is None else f"{clock(left)} left", style="progress.remaining")


def clock(seconds: float) -> str:
    """0:09, 12:40, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bars(Progress):
    """Rich's progress display with a line under the bar for what does not fit beside it at 80 columns."""

    def __init__(self, console: Console, *, disable: bool) -> None:
        self.curve = Curve()
        super().__init__(
            TextColumn("{task.fields[shown]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counted]}/{task.fields[of]}", style="progress.download", markup=False),
            TimeColumn(),
            console=console,
            disable=disable,
            refresh_per_second=8,
            # Starting the refresh thread can hang when memory is exhausted; off a terminal nobody watches it.
            auto_refresh=console.is_terminal,
        )

    def begin(self, title: str, total: int, parts: int = 1) -> Bar:
        """Adds the one task of this display: `total` things of so many parts each."""
        room = max(LEAST_DESCRIPTION, self.console.width - BESIDE_COLUMNS)
        shown = shortened(title, room)
        task = self.add_task("", total=total * parts, shown=shown, details="", counted=0, of=total)
        return Bar(self, task, total, parts)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields.get("details"):
                yield self._beneath(str(task.fields["details"]))

    def _beneath(self, details: str) -> Text:
        room = self.console.width - len(details) - 5
        curve = self.curve.shown(min(room, WIDEST_CURVE)) if room >= NARROWEST_CURVE else ""
        line = Text.assemble("  ", details, "  " if curve else "", (curve, "cyan"), no_wrap=True, overflow="ellipsis")
        line.truncate(self.console.width, overflow="ellipsis")
        return line


def shortened(title: str, room: int) -> str:
    """A title in at most `room` characters, cut between words where it has any."""
    if len(title) <= room:
        return title
    start = title[:room].rpartition(" ")[0] or title[: room - 1]
    return f"{start[: room - 1]}…"


def _shortened(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values, each the mean of its stretch."""
    if len(values) <= width:
        return list(values)
    edges = [round(number * len(values) / width) for number in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
