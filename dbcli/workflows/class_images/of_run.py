"""The prior of one run: which class images each of its subjects gets, and the line that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord, RunSubject, append_event, save_run
from dbcli.project.settings.profile_settings import PriorSettings, Profile
from dbcli.workflows.class_images.draw import ClassImages, ensure_class_images
from dbcli.workflows.models.textual_inversion import has_prior
from dbcli.workflows.progress import Progress
from dbcli.workflows.signals import StopSignal

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


def prior_settings(subject: RunSubject, profile: Profile) -> PriorSettings:
    """How the class images of a run's subject are made: as the run says, or as they were when it was learnt."""
    if subject.learnt_in is None:
        return profile.prior
    if subject.prior is not None:
        return PriorSettings.model_validate({"timesteps": "published", **subject.prior})
    return profile.prior.model_copy(update={"folder": None})


def run_class_images(
    layout: Layout,
    base: Base,
    record: RunRecord,
    profile: Profile,
    resolution: int,
    progress: Progress,
    stop: StopSignal,
    group: ProcessGroup = SINGLE,
) -> list[ClassImages | None]:
    """The class images of each subject shown; subjects of one class share a set. None for each with the prior off."""
    found: list[ClassImages | None] = []
    sets: dict[str, ClassImages] = {}
    for subject in record.shown:
        if not has_prior(profile):
            found.append(None)
            continue
        settings = prior_settings(subject, profile)
        known = f"{subject.class_noun}\n{settings.model_dump_json()}"
        if known not in sets:
            noun = subject.class_noun
            sets[known] = ensure_class_images(layout, base, noun, settings, resolution, progress, stop, group)
        found.append(sets[known])
    return found


def tell_prior(
    layout: Layout,
    record: RunRecord,
    class_images: Sequence[ClassImages | None],
    profile: Profile,
    progress: Progress,
) -> None:
    """One line a run, printed and recorded: whether the prior is on, with which images."""
    sets = {images.key: images for images in class_images if images is not None}
    line = "; ".join(images.line for images in sets.values()) or "prior OFF"
    if profile.prior.enabled and not has_prior(profile):
        line += ": new vectors change nothing that the base knows of the class"
    if sets and profile.prior.weight == 0:
        line += " with weight 0"
    progress.note(line)
    record.prior = {
        "line": line,
        "weight": profile.prior.weight if sets else None,
        "sets": [{"key": one.key, "prompt": one.prompt, "images": len(one.files)} for one in sets.values()],
    }
    append_event(layout, record.name, {"event": "prior", "line": line})
    save_run(layout, record)
