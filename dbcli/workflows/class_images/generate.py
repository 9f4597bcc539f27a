"""Class images for prior preservation: generated once by the frozen base, kept with their recipe, topped up later."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.buckets import Size
from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import Interrupted
from dbcli.project.class_images.class_image_sets import ClassImageRecipe, ClassImageSet
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import Waiting
from dbcli.project.images.recipes import png_bytes
from dbcli.project.prompts.identifiers import Words, render_with
from dbcli.project.settings.profile_settings import PriorSettings
from dbcli.workflows.images.generated import sampled
from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


@dataclass(frozen=True)
class ClassImages:
    """The class images of one class noun under one prompt: the files, how many are wanted, the line that says so.

    They are shown at a `size` in px beside the photos' `sentence`th sentence.
    """

    class_noun: str
    prompt: str
    files: list[Path]
    key: str
    line: str
    wanted: int
    size: Size
    sentence: int = 0


def class_prompt(template: str, class_noun: str) -> str:
    """The prompt of a class's images: "a photo of a dog"."""
    return render_with(template, {"member": Words("", class_noun)})


def ensure_class_images(
    layout: Layout,
    base: Base,
    class_noun: str,
    template: str,
    settings: PriorSettings,
    size: Size,
    progress: Progress,
    should_stop: Callable[[], bool],
    group: ProcessGroup = SINGLE,
    waiting: Waiting | None = None,
) -> ClassImages:
    """Gives the first `settings.images` images of a class's set under one prompt, generating those that are missing.

    A set is known by the base's weights, prompt, sampler, steps, guidance, size, seed and precision: one that was made
    in any other way is another set. Raises Interrupted between two images; what was generated stays. Raises LockHeld
    while another process draws into the set, or with `waiting` waits for it.
    """
    from dbcli.diffusion.precision import precision_on

    device: Any = base.unet.device
    prompt = class_prompt(template, class_noun)
    if settings.folder is not None:
        folder = Path(settings.folder)
        own = group.on_main(lambda: ClassImageSet.from_folder(layout, class_noun, folder, waiting=waiting))
        files = own.images(settings.images)
        return ClassImages(class_noun, prompt, files, own.key, own.line(settings.images), len(files), size)
    recipe = ClassImageRecipe(
        base_hash=base.hash,
        prompt=prompt,
        sampler=settings.sampler,
        eta=0.0,
        steps=settings.steps,
        guidance=settings.guidance,
        width=size[0],
        height=size[1],
        seed=settings.seed,
        precision=precision_on(settings.precision, device),
        timesteps=base.process.visited(settings.sampler, settings.steps, settings.timesteps),
    )
    image_set = group.on_main(lambda: ClassImageSet.open_or_create(layout, class_noun, recipe))
    if group.on_main(lambda: image_set.missing(settings.images)):
        with image_set.lock(waiting) if group.is_main else nullcontext():
            _generate_missing(base, image_set, settings, progress, should_stop, group)
    files, line = image_set.images(settings.images), image_set.line(settings.images)
    return ClassImages(class_noun, prompt, files, image_set.key, line, settings.images, size)


def _generate_missing(
    base: Base,
    image_set: ClassImageSet,
    settings: PriorSettings,
    progress: Progress,
    should_stop: Callable[[], bool],
    group: ProcessGroup,
) -> None:
    """Generates what is missing, one seed an image, so that 8 images stay the same 8 among 100."""
    missing = group.on_main(lambda: image_set.missing(settings.images))
    if not missing:  # another process has drawn them in the meantime
        return
    try:
        with group.together():
            _generate_own(base, image_set, missing, settings, progress, should_stop, group)
    except Interrupted as stopped:
        have = len(missing) - len(image_set.missing(settings.images))
        raise Interrupted(
            f"Stopped while generating class images; {have} of {len(missing)} are kept.",
            hint="the same command continues from there",
            exit_code=stopped.exit_code,
        ) from stopped


def _generate_own(
    base: Base,
    image_set: ClassImageSet,
    missing: list[int],
    settings: PriorSettings,
    progress: Progress,
    should_stop: Callable[[], bool],
    group: ProcessGroup,
) -> None:
    """Generates, stores and records this rank's share of the missing images. Raises Interrupted between two of them."""
    from dbcli.diffusion.noise import seed_for
    from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings

    recipe = image_set.recipe
    assert recipe is not None  # own photos are never missing
    indices = _whole_groups(missing, settings.images, settings.batch_size)
    requests = [SampleRequest(recipe.prompt, seed_for(recipe.seed, "class image", 0, index)) for index in indices]
    sampling = SamplingSettings(
        recipe.sampler,
        recipe.steps,
        recipe.guidance,
        recipe.eta,
        recipe.width,
        recipe.height,
        settings.batch_size,
        precision=recipe.precision,
        timesteps=recipe.timesteps,
    )
    own = {place for place in group.split(range(len(indices)), settings.batch_size) if indices[place] in missing}
    title = f"Class images: {recipe.prompt}"
    for place, image in sampled(base, requests, sampling, own, title, progress, should_stop):
        image_set.record(indices[place], image_set.put(indices[place], png_bytes(image)))


def _whole_groups(missing: Collection[int], count: int, batch_size: int) -> list[int]:
    """The indices below `count` to generate, in whole batches of neighbours.

    The last bits of an image depend on the size of its batch: after an interruption each is generated with the others
    it would have had, so that a run which was stopped sees the same images as one which was not.
    """
    groups = sorted({index // batch_size for index in missing})
    return [index for group in groups for index in range(group * batch_size, min(count, (group + 1) * batch_size))]
