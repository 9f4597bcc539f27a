"""Class images by hand: generate a set ahead of a run, list them, remove those no longer wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import Refused
from dbcli.project.class_images.class_image_sets import ClassImageSet, list_class_image_sets, remove_class_image_set
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import Words, check_class_noun
from dbcli.project.seeds import settled
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.class_images.draw import ClassImages, class_prompt, ensure_class_images
from dbcli.workflows.launch import take_devices
from dbcli.workflows.machine_use import computing
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import check_length
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.effective_settings import resolve_profile
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.signals import listening


@dataclass(frozen=True)
class SetSummary:
    """One set of class images in a list."""

    key: str
    class_noun: str
    prompt: str | None
    images: int
    size_bytes: int
    fits_base: bool


def make_class_images(
    layout: Layout,
    class_noun: str,
    *,
    count: int | None,
    profile: str | None,
    sets: Sequence[str],
    progress: Progress,
    offline: bool,
    group: ProcessGroup = SINGLE,
) -> ClassImages:
    """Draws what a run of this class would need, now, shared between the ranks of a group."""
    noun = check_class_noun(class_noun)
    settled.begin()
    flags = {"prior.images": count}
    settings = group.on_main(lambda: resolve_profile(layout, profile=profile, sets=sets, flags=flags)[1])
    prompt = class_prompt(settings.prior.template, noun)
    check_length([prompt], {noun: Words("", noun)}, progress, facts_of(layout).max_tokens)
    from dbcli.diffusion.devices import pick_device

    take_devices(group, settings.train.device, progress)
    with computing("class images", progress, group), listening(group) as stop:
        with group.main_first():
            device = pick_device(settings.train.device)
            base = load_project_base(layout, progress, offline=offline or not group.is_main, device=device)
        resolution = settings.images.resolution or base.resolution
        return ensure_class_images(layout, base, noun, settings.prior, resolution, progress, stop, group)


def summaries(layout: Layout) -> list[SetSummary]:
    """All class images of the project."""
    base_hash = load_settings(layout).base_hash
    return [_summary(one, base_hash) for one in list_class_image_sets(layout)]


def prune(layout: Layout, keys: Sequence[str]) -> None:
    """Removes sets of class images by key. DataError for one that is not there, LockHeld for one being generated."""
    if not keys:
        raise Refused("No class images were chosen.", hint="dreambooth reg list")
    for key in keys:
        remove_class_image_set(layout, key)


def unfit(layout: Layout) -> list[str]:
    """Keys of the sets that were drawn by another base than the project's."""
    return [one.key for one in summaries(layout) if not one.fits_base]


def _summary(one: ClassImageSet, base_hash: str | None) -> SetSummary:
    prompt = None if one.recipe is None else one.recipe.prompt
    fits = one.recipe is None or base_hash is None or one.recipe.base_hash == base_hash
    return SetSummary(one.key, one.class_noun, prompt, one.recorded_count(), one.size_bytes(), fits)
