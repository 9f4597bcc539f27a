"""A model in memory with what is known of it: which run's, at which step, with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import profile_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate images, and the settings that hold for it.

    `record` is the run whose weights it has, None for the bare base; `checkpoint` the step they are of, None for the
    run's result.
    """

    layout: Layout
    record: RunRecord | None
    profile: Profile
    base: Base
    checkpoint: int | None = None


def loaded_run(
    layout: Layout, record: RunRecord | None, progress: Progress, *, offline: bool, checkpoint: int | None = None
) -> LoadedModel:
    """Loads a run's model, or the bare base, onto the device its settings name. Raises what `load_model` raises."""
    from dbcli.diffusion.devices import pick_device

    profile = profile_of(layout, record)
    device = pick_device(profile.train.device)
    base = load_model(layout, record, progress, offline=offline, device=device, checkpoint=checkpoint)
    return LoadedModel(layout, record, profile, base, checkpoint)
