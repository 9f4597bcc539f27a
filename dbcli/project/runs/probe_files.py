"""What probes in training leave behind: `probes.json`, and the weights of checkpoints that may become the result."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from dbcli.errors import DataError
from dbcli.project.files.atomic import (
    remove_folder,
    remove_leftovers,
    write_json,
)
from dbcli.project.files.layout import Layout
from dbcli.project.files.records import Record, load_record
from dbcli.project.runs.checkpoints import FOLDER_PATTERN, is_complete, write_step
from dbcli.project.runs.score_files import judges_key


class ProbePlan(BaseModel):
    """What was settled before the first step, so that a resumed run probes as one that was never stopped."""

    steps: list[int] = Field(default_factory=list, description="after which steps to probe; none: no probes")
    seeds: int = 1
    why: str = Field(default="", description="the reason for the plan, in words")


class ProbeEntry(BaseModel):
    """One checkpoint's scores; the lists hold one value a picture, in an order that never changes within a run.

    `images` are the numbers of the pictures that `fidelities` are of; older records do not have it.

    `identified`, `scene` and `copies` are shares of its pictures, None where they cannot be told.
    """

    step: int
    fidelity: float
    editability: float
    preservation: float | None = None
    beyond_class: float | None = None
    identified: float | None = None
    scene: float | None = None
    copies: float | None = None
    copying: bool = False
    held_out: float | None = Field(default=None, description="the loss on photos that the run keeps back")
    seconds: float = 0.0
    fidelities: list[float] = Field(default_factory=list)
    editabilities: list[float] = Field(default_factory=list)
    images: list[int] = Field(default_factory=list)


class SkippedProbe(BaseModel):
    """A planned probe that has no scores, and why: its cost, a failure, or judges of another edition."""

    step: int
    why: str
    cause: Literal["budget", "failure", "judges"] = "budget"


class ProbeRecord(Record):
    """The contents of `probes.json`."""

    plan: ProbePlan = Field(default_factory=ProbePlan)
    judges: dict[str, Any] = Field(default_factory=dict)
    real: float | None = Field(default=None, description="fidelity of the photos among themselves")
    loading_seconds: float = Field(default=0.0, description="what loading the judges took, in all processes")
    probes: list[ProbeEntry] = Field(default_factory=list)
    skipped: list[SkippedProbe] = Field(default_factory=list)
    stopped_at: int | None = Field(default=None, description="the step at which `stop: auto` ended the run")
    chosen: int | None = Field(default=None, description="the step whose weights became the result")
    rule: str | None = None

    def settled(self, step: int) -> bool:
        """Whether a planned probe was made or left out for good."""
        return step in [one.step for one in self.probes] + [one.step for one in self.skipped]

    def forget_other_judges(self, judges: Mapping[str, Any]) -> list[int]:
        """Drops what other judges than these found, for it does not compare; the steps that are no longer known."""
        lost = (
            [one.step for one in self.probes] if self.judges and judges_key(self.judges) != judges_key(judges) else []
        )
        self.probes = [one for one in self.probes if one.step not in lost]
        self.skipped += [
            SkippedProbe(step=step, why="scored by another edition of the judges", cause="judges") for step in lost
        ]
        return lost

    def forget_after(self, step: int) -> None:
        """Drops what belongs to steps that will be trained anew, and differently."""
        self.probes = [one for one in self.probes if one.step <= step]
        self.skipped = [one for one in self.skipped if one.step <= step]
        if self.stopped_at is not None and self.stopped_at > step:
            self.stopped_at = None


def load_probes(layout: Layout, run: str) -> ProbeRecord | None:
    """What a run's probes found; None for a run without them. Raises DataError for a damaged record."""
    try:
        return load_record(ProbeRecord, layout.probes_dir(run) / "probes.json", "record of the probes", DataError)
    except FileNotFoundError:
        return None


def save_probes(layout: Layout, run: str, record: ProbeRecord) -> None:
    """Replaces the record of a run's probes in one step."""
    layout.probes_dir(run).mkdir(parents=True, exist_ok=True)
    write_json(layout.probes_dir(run) / "probes.json", record.to_plain())


def drop_probes(layout: Layout, run: str) -> None:
    """Forgets what a run's probes found, with their images and the weights kept for the choice."""
    folder = layout.probes_dir(run)
    if folder.is_dir():
        remove_folder(folder)


def forget_probes(layout: Layout, run: str, *, after: int) -> None:
    """Forgets what probes found after a step from which the run goes on otherwise, with the weights kept of them."""
    found = load_probes(layout, run)
    if found is None:
        return
    found.forget_after(after)
    save_probes(layout, run, found)
    drop_weights(layout, run, but=[one.step for one in found.probes])


def probe_image(layout: Layout, run: str, step: int, index: int) -> Path:
    """Where the picture `index` of the probe after `step` lies."""
    return layout.probes_dir(run) / "pictures" / f"step-{step:06d}-{index:03d}.png"


def probe_images(layout: Layout, run: str, step: int) -> list[Path]:
    """The pictures that the probe after `step` drew, in their order."""
    return sorted((layout.probes_dir(run) / "pictures").glob(f"step-{step:06d}-*.png"))


def keep_weights(layout: Layout, run: str, step: int, write: Callable[[Path], None], *, needed_bytes: int) -> None:
    """Lets `write` fill a hidden folder, then makes it the kept weights of `step`. Raises DiskFull."""
    folder = _weights(layout, run)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_step(folder, step, write, needed_bytes=needed_bytes)


def kept_weights(layout: Layout, run: str, step: int) -> Path | None:
    """The folder with the weights of `step`; None where it is gone or damaged."""
    folder = _weights(layout, run) / f"step-{step:06d}"
    return folder if is_complete(folder) else None


def drop_weights(layout: Layout, run: str, *, but: Collection[int]) -> None:
    """Removes kept weights, those of the steps in `but` apart."""
    folder = _weights(layout, run)
    for path in folder.iterdir() if folder.is_dir() else []:
        match = FOLDER_PATTERN.fullmatch(path.name)
        if match and int(match.group(1)) not in but:
            remove_folder(path)


def _weights(layout: Layout, run: str) -> Path:
    return layout.probes_dir(run) / "weights"
