"""The prior of one run: which class images each of its subjects gets, and the line that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dbcli.diffusion.buckets import Size, size_for
from dbcli.project.runs.run_store import RunSubject
from dbcli.project.settings.profile_settings import PriorSettings, Profile
from dbcli.workflows.class_images.generate import ClassImages, ensure_class_images
from dbcli.workflows.class_images.sentences import class_sentences
from dbcli.workflows.class_images.shares import own_photos, shared
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

    Where photos have several sizes, a sentence has class images of each size that its subject's photos have. Subjects
    of one class share their sets.
    """
    found: list[list[ClassImages]] = [[] for _ in run.record.shown]
    sets: dict[str, ClassImages] = {}
    sizes, shown = run.sizes(base), list(zip(run.record.shown, run.subjects, strict=True))
    for place, (subject, own) in enumerate(shown if has_prior(run.profile) else ()):
        noun, prior = subject.class_noun, prior_settings(subject, run.profile)
        # Of all subjects of the class, so that each counts on as many of a set.
        shapes = [shape for other, of in shown if other.class_noun == noun for shape in of.shapes]
        needed = {size_for(shape, sizes) for shape in own.shapes}
        for number, one in enumerate(class_sentences(prior, run.profile.images)):
            for size, settings in shared(one.settings, shapes, sizes).items():
                if size not in needed:
                    continue
                known = "\n".join([noun, one.template, settings.model_dump_json(), str(size)])
                if known not in sets:
                    sets[known] = _class_images(run, base, noun, one.template, settings, size, sizes)
                found[place].append(replace(sets[known], sentence=number))
    if run.group.is_main:
        _tell(run, found)
    return found


def _class_images(
    run: RunContext,
    base: Base,
    class_noun: str,
    template: str,
    settings: PriorSettings,
    size: Size,
    sizes: Sequence[Size],
) -> ClassImages:
    images = ensure_class_images(
        run.layout, base, class_noun, template, settings, size, run.progress, run.stop, run.group, run.waiting
    )
    return images if settings.folder is None else replace(images, files=own_photos(images.files, size, sizes))


def _tell(run: RunContext, class_images: Sequence[Sequence[ClassImages]]) -> None:
    """One line per run, printed and recorded: whether the prior is on, with which images."""
    prior, sets = run.profile.prior, _by_key(class_images)
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


def _by_key(class_images: Sequence[Sequence[ClassImages]]) -> dict[str, ClassImages]:
    """Every set once; of one whose images have several sizes all that are shown."""
    sets: dict[str, ClassImages] = {}
    for one in (images for own in class_images for images in own):
        known = sets.get(one.key, one)
        sets[one.key] = replace(one, files=list(dict.fromkeys([*known.files, *one.files])))
    return sets


def _line(run: RunContext, sets: Sequence[ClassImages]) -> str:
    """The line of one class: "prior ON (32/32, reg/dog-1a2b3c4d5e6f, reg/dog-6f5e4d3c2b1a)"."""
    if len(sets) == 1:
        return sets[0].line
    have, wanted = sum(len(one.files) for one in sets), sum(one.wanted for one in sets)
    folders = ", ".join(run.layout.shown(run.layout.class_image_set_dir(one.key)) for one in sets)
    return f"prior ON ({have}/{wanted}, {folders})"
