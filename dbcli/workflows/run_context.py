"""A training run under way: what every part of it works with, and how it writes into its own record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.buckets import Size, training_sizes
from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import Waiting
from dbcli.project.runs.run_store import RunRecord, append_event, save_run
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.progress import Progress
from dbcli.workflows.signals import StopSignal

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


@dataclass(frozen=True)
class RunContext:
    """One attempt at a run, with the settings it has now; `subjects` are those whose photos it sees.

    It holds no model: a run that falls back to a smaller recipe must not keep the memory of the larger one. Only the
    main rank of the group writes.
    """

    layout: Layout
    record: RunRecord
    profile: Profile
    subjects: Sequence[Subject]
    progress: Progress
    stop: StopSignal
    group: ProcessGroup = SINGLE
    offline: bool = True

    @property
    def name(self) -> str:
        return self.record.name

    def resolution(self, base: Base) -> int:
        """The side in px of what the run sees: its own setting, else what the base was trained at."""
        return self.profile.images.resolution or base.resolution

    def sizes(self, base: Base) -> list[Size]:
        """Width and height in px of what the run sees: a square, or the sizes that fit its photos."""
        shapes = [shape for subject in self.subjects for shape in subject.shapes]
        buckets, resolution = self.profile.images.buckets, self.resolution(base)
        return training_sizes(buckets, shapes, resolution, grid_px=base.grid_px, step_px=base.step_px)

    @property
    def waiting(self) -> Waiting | None:
        """How the run waits for class images that another process makes: as a sweep's, whose cells may share them.

        One that a person started is refused instead, and names the other process.
        """
        return Waiting(self.progress.note, self.stop) if self.record.work_key is not None else None

    def save(self) -> None:
        """Writes the run's record."""
        if self.group.is_main:
            save_run(self.layout, self.record)

    def event(self, what: str, facts: Mapping[str, Any]) -> None:
        """Appends a line to the run's events."""
        if self.group.is_main:
            append_event(self.layout, self.name, {"event": what, **facts})

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds what the block takes to the seconds of a phase."""
        began = time.perf_counter()
        yield
        self.record.timings[phase] = round(self.record.timings.get(phase, 0.0) + time.perf_counter() - began, 3)
