"""The prior of one run: which class images each of its subjects gets, and the line that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.project.runs.run_store import RunSubject
from dbcli.project.settings.profile_settings import PriorSettings, Profile
from dbcli.workflows.class_images.generate import ClassImages, ensure_class_images
from dbcli.workflows.models.textual_inversion import has_prior
from dbcli.workflows.run_context import RunContext

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


def prior_settings(subject: RunSubject, profile: Profile) -> PriorSettings:
    """How the class images of a run's subject are made: as the run says, or as they were when it was learnt."""
    if subject.learnt_in is None:
        return profile.prior
    if subject.prior is not None:
        return PriorSettings.model_validate({"timesteps": "published", **subject.prior})
    return profile.prior.model_copy(update={"folder": None})


def run_class_images(run: RunContext, base: Base) -> list[ClassImages | None]:
    """The class images of each subject shown; subjects of one class share a set. None for each with the prior off."""
    found: list[ClassImages | None] = [None] * len(run.record.shown)
    sets: dict[str, ClassImages] = {}
    for place, subject in enumerate(run.record.shown if has_prior(run.profile) else ()):
        settings, noun = prior_settings(subject, run.profile), subject.class_noun
        known = f"{noun}\n{settings.model_dump_json()}"
        if known not in sets:
            sets[known] = ensure_class_images(
                run.layout, base, noun, settings, run.resolution(base), run.progress, run.stop, run.group
            )
        found[place] = sets[known]
    if run.group.is_main:
        _tell(run, found)
    return found


def _tell(run: RunContext, class_images: Sequence[ClassImages | None]) -> None:
    """One line per run, printed and recorded: whether the prior is on, with which images."""
    prior, sets = run.profile.prior, {images.key: images for images in class_images if images is not None}
    line = "; ".join(images.line for images in sets.values()) or "prior OFF"
    if prior.enabled and not has_prior(run.profile):
        line += ": new vectors change nothing that the base knows about the class"
    if sets and prior.weight == 0:
        line += " with weight 0"
    run.progress.note(line)
    run.record.prior = {
        "line": line,
        "weight": prior.weight if sets else None,
        "sets": [{"key": one.key, "prompt": one.prompt, "images": len(one.files)} for one in sets.values()],
    }
    run.event("prior", {"line": line})
    run.save()
