"""A model in memory with what is known of it: which run's, at which step, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import profile_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

BARE_BASE_TITLE = "the bare base"
# Among the extras of an image's recipe: the step of the checkpoint whose weights it is of.
CHECKPOINT_KEY = "checkpoint"
# Among them, too: the runs that generated it together, or the one at another weight than 1, each with its weight.
RUNS_KEY = "runs"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate images, and the settings that hold for it.

    `record` is the run whose weights it has, None for the bare base; where several LoRAs generate together it is the
    first one's and knows the subjects of all. `extras` is what the recipe of every image keeps of the weights: other
    runs, or a checkpoint's step.
    """

    layout: Layout
    record: RunRecord | None
    profile: Profile
    base: Base
    title: str = BARE_BASE_TITLE
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> str | None:
        return None if self.record is None else self.record.name


def loaded_run(
    layout: Layout, record: RunRecord | None, progress: Progress, *, offline: bool, checkpoint: int | None = None
) -> LoadedModel:
    """Loads a run's model, or the bare base, onto the device its settings name. Raises what `load_model` raises."""
    from dbcli.diffusion.devices import pick_device

    profile = profile_of(layout, record)
    device = pick_device(profile.train.device)
    base = load_model(layout, record, progress, offline=offline, device=device, checkpoint=checkpoint)
    extras = {} if checkpoint is None else {CHECKPOINT_KEY: checkpoint}
    return LoadedModel(layout, record, profile, base, BARE_BASE_TITLE if record is None else record.name, extras)
