"""The prior of one run: which class images each of its subjects gets, and the line that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.project.runs.run_store import RunSubject
from dbcli.project.settings.profile_settings import PriorSettings, Profile
from dbcli.workflows.class_images.generate import ClassImages, ensure_class_images
from dbcli.workflows.class_images.sentences import class_sentences
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


def run_class_images(run: RunContext, base: Base) -> list[list[ClassImages]]:
    """The class images of each subject shown, those of each sentence it is taught with; none with the prior off.

    Subjects of one class share their sets.
    """
    found: list[list[ClassImages]] = [[] for _ in run.record.shown]
    sets: dict[str, ClassImages] = {}
    for place, subject in enumerate(run.record.shown if has_prior(run.profile) else ()):
        noun, prior = subject.class_noun, prior_settings(subject, run.profile)
        for one in class_sentences(prior, run.profile.images):
            known = "\n".join([noun, one.template, one.settings.model_dump_json()])
            if known not in sets:
                sets[known] = ensure_class_images(
                    run.layout,
                    base,
                    noun,
                    one.template,
                    one.settings,
                    run.resolution(base),
                    run.progress,
                    run.stop,
                    run.group,
                )
            found[place].append(sets[known])
    if run.group.is_main:
        _tell(run, found)
    return found


def _tell(run: RunContext, class_images: Sequence[Sequence[ClassImages]]) -> None:
    """One line per run, printed and recorded: whether the prior is on, with which images."""
    prior, sets = run.profile.prior, {images.key: images for own in class_images for images in own}
    by_noun: dict[str, list[ClassImages]] = {}
    for one in sets.values():
        by_noun.setdefault(one.class_noun, []).append(one)
    line = "; ".join(_line(run, own) for own in by_noun.values()) or "prior OFF"
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


def _line(run: RunContext, sets: Sequence[ClassImages]) -> str:
    """The line of one class: "prior ON (32/32, reg/dog-1a2b3c4d5e6f, reg/dog-6f5e4d3c2b1a)"."""
    if len(sets) == 1:
        return sets[0].line
    have, wanted = sum(len(one.files) for one in sets), sum(one.wanted for one in sets)
    folders = ", ".join(run.layout.shown(run.layout.class_image_set_dir(one.key)) for one in sets)
    return f"prior ON ({have}/{wanted}, {folders})"
