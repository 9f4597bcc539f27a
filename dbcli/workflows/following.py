"""The processes beside the one that leads a command: they wait for orders, do their part, and write no record.

Run as a module it is what `--gpus N` starts; torchrun's and accelerate's processes come here from their command.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import Refused
from dbcli.project.class_images.class_image_sets import open_class_image_set
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe
from dbcli.project.runs.run_store import RunRecord, load_run
from dbcli.project.settings.profile_settings import FROZEN, Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.lineage import parent_of
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.class_images.draw import ClassImages, draw_class_images
from dbcli.workflows.images.generated import generate_images
from dbcli.workflows.models.trainable import make_trainable, take_over
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.signals import StopSignal, listening
from dbcli.workflows.staff import FOLLOWERS_PORT, arrival_key
from dbcli.workflows.training.data import Lesson, gather
from dbcli.workflows.training.loop import build_trainer, row_plan
from dbcli.workflows.training.teacher import teacher_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.parallel import Company
    from dbcli.diffusion.training.trainer import Trainer

LEADER_LOST = 5


def follow() -> int:
    """Works for process 0 until it says that there is no more; the exit code."""
    from dbcli.diffusion.training.parallel import ProcessLost, find_store, join, part

    rank, port = int(os.environ["RANK"]), os.environ.get(FOLLOWERS_PORT)
    store = None
    if port is not None:
        store = find_store(int(port), int(os.environ["WORLD_SIZE"]))
        store.set(arrival_key(rank), "")
    try:
        with listening() as stop:
            Follower(join(stop, store), stop).obey()
    except ProcessLost as error:
        sys.stderr.write(f"{error.message}\n")
        return LEADER_LOST
    finally:
        part()
    return 0


class Follower:
    """What one process has in its hands: a base, then a run's lesson, then a trainer."""

    def __init__(self, company: Company, stop: StopSignal) -> None:
        self.company, self.stop, self.progress = company, stop, Silence()
        self.fault: Exception | None = None
        self.job: _Job | None = None
        self.base: Base | None = None
        self.trainer: Trainer | None = None

    def obey(self) -> None:
        """Does what process 0 announces, until it is to leave."""
        beside: dict[str, Callable[..., None]] = {
            "base": self._take_base,
            "model": self._take_model,
            "train": self._take_job,
            "gather": self._gather,
            "load": self._load,
        }
        common: dict[str, Callable[..., dict[str, Any] | None]] = {
            "class images": self._draw_class_images,
            "build": self._build,
            "draw": self._draw,
        }
        while (order := self.company.await_order())["do"] != "leave":
            what, facts = order.pop("do"), order
            if what == "take devices":
                self.company.take_devices(**facts)
            elif what == "step":
                self._step(**facts)
            elif what in common:
                self._in_common(common[what], facts)
            else:
                self._beside(beside[what], facts)

    def _beside(self, work: Callable[..., None], facts: dict[str, Any]) -> None:
        """Nobody waits for this work: a fault is kept until everybody hears of faults."""
        try:
            if self.fault is None:
                work(**facts)
        except Exception as error:
            self.fault = error

    def _in_common(self, work: Callable[..., dict[str, Any] | None], facts: dict[str, Any]) -> None:
        report = None
        try:
            if self.fault is None:
                report = work(**facts)
        except Exception as error:
            self.fault = error
        fault, self.fault = self.fault, None
        self._go_on_after(lambda: self.company.settle(fault, report))

    def _step(self, rate_scale: float) -> None:
        from dbcli.diffusion.training.parallel import ProcessLost

        assert self.trainer is not None  # it was built in common, or there would be no step
        fault, self.fault, trainer, before = self.fault, None, self.trainer, self.company.settled

        def step() -> None:
            try:
                if fault is not None:
                    raise fault
                trainer.rate_scale = rate_scale
                trainer.step()
            except Exception as error:
                if isinstance(error, ProcessLost) or self.company.settled > before:
                    raise
                # The others stand in the middle of a step and wait for this one.
                with self.company.step(rate_scale, trainer.parameters):
                    raise error

        self._go_on_after(step)

    def _go_on_after(self, work: Callable[[], Any]) -> None:
        """A fault, this process's or another's, is known to all by now: what follows from it process 0 decides."""
        from dbcli.diffusion.training.parallel import ProcessLost

        try:
            work()
        except ProcessLost:
            raise
        except Exception as error:
            # The frames of what failed hold its tensors.
            traceback.clear_frames(error.__traceback__)

    def _take_base(self, root: str, base_hash: str, device: str) -> None:
        from dbcli.diffusion.bases.base import load_base
        from dbcli.diffusion.devices import pick_device

        self.job = self.trainer = self.base = None
        gc.collect()
        settings = load_settings(Layout(Path(root)))
        # Process 0 has it by now, downloaded if need be.
        how: dict[str, Any] = {"offline": True, "device": pick_device(device), **settings.base_choices}
        self.base = load_base(settings.base, settings.revision, **how)
        if self.base.hash != base_hash:
            raise Refused(f"The base {settings.base} has other weights than process 0's.")

    def _take_model(self, root: str, run: str, checkpoint: int | None, device: str) -> None:
        from dbcli.diffusion.devices import pick_device
        from dbcli.workflows.models.weights import load_model

        layout = Layout(Path(root))
        how: dict[str, Any] = {"offline": True, "device": pick_device(device), "checkpoint": checkpoint}
        self.base = load_model(layout, load_run(layout, run), self.progress, **how)

    def _take_job(self, root: str, run: str, profile: dict[str, Any], subjects: list[dict[str, Any]]) -> None:
        layout = Layout(Path(root))
        known = [Subject.model_validate(one) for one in subjects]
        self.job = _Job(layout, load_run(layout, run), Profile.model_validate(profile, context=FROZEN), known)

    def _draw_class_images(self, root: str, key: str, shares: list[list[int]], **drawing: Any) -> dict[str, Any]:
        assert self.base is not None
        image_set = open_class_image_set(Layout(Path(root)), key)
        drawn: list[tuple[int, str]] = []
        told: dict[str, Any] = {"progress": self.progress, "should_stop": self.stop}
        told["on_drawn"] = lambda index, digest: drawn.append((index, digest))
        try:
            draw_class_images(self.base, image_set, **drawing, share=shares[self.company.rank], **told)
        except Exception as error:
            self.fault = error  # with what was drawn before it
        return {"drawn": drawn}

    def _gather(self, class_images: list[dict[str, Any] | None]) -> None:
        assert self.base is not None and self.job is not None
        known = [None if one is None else ClassImages.from_plain(one) for one in class_images]
        self.job.gather(self.base, known, self.progress, self.stop)

    def _build(self) -> None:
        from dbcli.diffusion.devices import keep_freed_memory

        assert self.base is not None and self.job is not None
        self.trainer = self.job.built(self.base, self.company, self.progress, self.stop)
        keep_freed_memory()

    def _load(self, folder: str, with_optimiser: bool) -> None:
        from dbcli.diffusion.training.state_files import read_state

        assert self.trainer is not None
        state = read_state(Path(folder))
        if not with_optimiser:
            state.optimiser = {}
        self.trainer.load_state(state)

    def _draw(self, recipes: list[dict[str, Any]], folder: str, batch_size: int, shares: list[list[int]]) -> None:
        assert self.base is not None
        generate_images(
            self.base,
            [Recipe.model_validate(one) for one in recipes],
            Path(folder),
            batch_size=batch_size,
            progress=self.progress,
            should_stop=self.stop,
            wanted=set(shares[self.company.rank]),
        )


@dataclass
class _Job:
    """One run as process 0 has it: the same steps to a trainer, and nothing written on the way."""

    layout: Layout
    record: RunRecord
    profile: Profile
    subjects: Sequence[Subject]
    class_images: Sequence[ClassImages | None] = ()
    lesson: Lesson | None = None

    def gather(
        self, base: Base, class_images: Sequence[ClassImages | None], progress: Progress, stop: StopSignal
    ) -> None:
        self.class_images, resolution = class_images, self.profile.images.resolution or base.resolution
        self.lesson = gather(self.layout, base, self.subjects, class_images, self.profile, resolution, progress, stop)

    def built(self, base: Base, company: Company, progress: Progress, stop: StopSignal) -> Trainer:
        assert self.lesson is not None
        layout, record, profile, lesson = self.layout, self.record, self.profile, self.lesson
        resolution, rows = profile.images.resolution or base.resolution, row_plan(lesson, profile, record)
        # Process 0 has stored what a teacher predicts by now; here it is read.
        teacher = teacher_of(layout, base, lesson, rows, self.class_images, profile, resolution, progress, stop)
        parent = parent_of(layout, record)
        lora = None if parent is None else take_over(layout, parent, base)
        trainable = make_trainable(base, profile, record.subjects, lora)
        return build_trainer(base, trainable, lesson, rows, teacher, profile, company)


def main() -> None:
    """A process that `--gpus N` started: it ends with the one that started it."""
    threading.Thread(target=_end_with_leader, daemon=True).start()
    sys.exit(follow())


def _end_with_leader() -> None:
    # Nothing is ever written there: reading ends when the other end is closed, by the leader's end if not before.
    sys.stdin.buffer.read()
    os._exit(LEADER_LOST)


if __name__ == "__main__":
    main()
