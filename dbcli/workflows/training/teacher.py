"""The teacher of a run's class term: the base beneath an adapter, or its predictions stored before it is tuned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.buckets import Size
from dbcli.errors import DreamboothError, Interrupted
from dbcli.project.class_images.teacher_store import TeacherStore
from dbcli.project.files.layout import Layout
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import ProjectSettings, load_settings
from dbcli.workflows.class_images.generate import ClassImages
from dbcli.workflows.class_images.sentences import stored_draws, teaches_empty_prompt
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.training.data import TrainingData, class_pixels

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.images import Posterior
    from dbcli.diffusion.training.batches import BatchSampler
    from dbcli.diffusion.training.teacher import Stored, Teacher

# A set of class images, at a size, under a prompt.
SetKey = tuple[str, Size, str]
# Of Stable Diffusion: channels of a latent, pixels it covers, and the side of an image in px.
USUAL_SHAPE = (4, 8, 512)


def teacher_of(
    run: RunContext,
    base: Base,
    data: TrainingData,
    batches: BatchSampler,
    class_images: Sequence[Sequence[ClassImages]],
) -> Teacher | None:
    """The teacher a profile asks for; None where class images alone do. The base must still be untuned.

    Raises Interrupted between two batches; predictions of the draws that were finished stay.
    """
    from dbcli.diffusion.conditioning import FrozenPrompts
    from dbcli.diffusion.training.teacher import AdapterOff, StoredTeacher

    train, prior = run.profile.train, run.profile.prior
    if prior.source != "teacher" or not any(class_images):
        return None
    if run.profile.method == "lora":
        device = next(base.unet.parameters()).device
        return AdapterOff(base.denoiser, FrozenPrompts(base, data.prompts, device))
    epochs = batches.class_epochs(train.steps * train.accumulation * train.batch_size)
    prompts = [""] if teaches_empty_prompt(run.profile) else []
    # A folder of own photos is one set under every sentence, and the base says something else of it under each.
    sets = {
        (one.key, one.size, prompt): replace(one, prompt=prompt)
        for of_subject in class_images
        for one in of_subject
        for prompt in (one.prompt, *prompts)
    }
    first, draws = _first_draws(class_images, epochs, prompts)
    # Encoded by themselves and in order, so that the store does not depend on the run that fills it.
    encoded = cache(partial(_encoded, run, base))
    stored = {
        key: stored_predictions(run, base, images, min(draws[key], prior.teacher_draws), encoded)
        for key, images in sets.items()
    }
    places: dict[tuple[int, int, int], tuple[Stored, int, int]] = {}
    for subject, own in ((number, one) for number, of_subject in enumerate(class_images) for one in of_subject):
        shown = [data.class_images[file, own.size] for file in own.files]
        for prompt in (own.prompt, *prompts):
            key, number = (own.key, own.size, prompt), data.prompts.index(prompt)
            begins = first[subject, key]
            places |= {(subject, image, number): (stored[key], index, begins) for index, image in enumerate(shown)}
    return StoredTeacher(places, base.process)


def _first_draws(
    class_images: Sequence[Sequence[ClassImages]], epochs: Sequence[Sequence[int]], prompts: Sequence[str]
) -> tuple[dict[tuple[int, SetKey], int], dict[SetKey, int]]:
    """The first draw of every subject's own of each set that it is shown, and how many all of its subjects use.

    epochs[i] are those of the i-th subject, a sentence each; `prompts` are asked beside each sentence's own.
    """
    first: dict[tuple[int, SetKey], int] = {}
    draws: dict[SetKey, int] = {}
    for subject, (of_subject, counts) in enumerate(zip(class_images, epochs, strict=True)):
        own: dict[SetKey, int] = {}
        for images in of_subject:
            for prompt in (images.prompt, *prompts):
                key = images.key, images.size, prompt
                own[key] = max(counts[images.sentence], own.get(key, 1))
        for key, count in own.items():
            first[subject, key] = draws.get(key, 0)
            draws[key] = first[subject, key] + count
    return first, draws


def stored_predictions(
    run: RunContext, base: Base, images: ClassImages, draws: int, encoded: Callable[..., Posterior]
) -> Stored:
    """The base's predictions for `draws` draws of each class image, computed where they are not stored yet.

    `encoded` gives the latents of files at a size. The main rank stores the predictions, and all read them.
    """
    import torch

    from dbcli.diffusion.training.teacher import Stored, read_predictions

    seed = run.profile.prior.seed
    store = TeacherStore.of(
        run.layout,
        images.key,
        images.files,
        base_hash=base.hash,
        prompt=images.prompt,
        size=images.size,
        seed=seed,
        precision=_precision(run, base),
    )
    run.group.on_main(lambda: _store_missing(store, run, base, images, draws, encoded))
    return Stored(torch.stack([read_predictions(store.file(number)) for number in range(draws)]), seed)


def _encoded(run: RunContext, base: Base, files: Sequence[Path], size: Size) -> Posterior:
    """The latents of class images at a size."""
    from dbcli.diffusion.images import encode

    pixels = [class_pixels(file, size) for file in files]
    return encode(base.vae, pixels, on_batch=lambda count: _raise_if_stopped(run))


def _precision(run: RunContext, base: Base) -> str:
    """The teacher's: that in which its class images are drawn."""
    from dbcli.diffusion.precision import precision_on

    return precision_on(run.profile.prior.precision, base.unet.device)


def _store_missing(
    store: TeacherStore,
    run: RunContext,
    base: Base,
    images: ClassImages,
    draws: int,
    encoded: Callable[..., Posterior],
) -> None:
    from dbcli.diffusion.conditioning import embed_prompts
    from dbcli.diffusion.training.teacher import predict, write_predictions

    missing, settings = store.missing(draws), run.profile.prior
    if not missing:
        return
    posterior, prompt = encoded(tuple(images.files), images.size), embed_prompts(base, [images.prompt])
    with run.progress.stage(
        f"Teacher predictions: {images.prompt or 'no prompt'}", len(missing) * len(images.files)
    ) as stage:

        def on_batch(count: int) -> None:
            stage.advance(count)
            _raise_if_stopped(run)

        def write(number: int, file: Path) -> None:
            made = predict(
                base.denoiser,
                posterior,
                prompt,
                seed=settings.seed,
                number=number,
                process=base.process,
                batch_size=settings.batch_size,
                precision=_precision(run, base),
                on_batch=on_batch,
            )
            write_predictions(file, made)

        store.fill(draws, write, needed_bytes=posterior.mean.nbytes, waiting=run.waiting)


def _raise_if_stopped(run: RunContext) -> None:
    if run.stop():
        raise Interrupted(
            "Stopped while the base's predictions were stored; those of the finished draws are kept.",
            hint="the same command continues from there",
        )


def stored_bytes(
    layout: Layout, profile: Profile, class_nouns: Collection[str], shape: tuple[int, int, int] | None = None
) -> int | None:
    """What the predictions of a run's teacher take on the disk at most; None for a run that stores none.

    `shape` is the base's as `latent_shape` gives it, if it is known.
    """
    draws = stored_draws(profile)
    if not draws:
        return None
    channels, factor, resolution = shape or _latent_shape(load_settings(layout))
    side: int = (profile.images.resolution or resolution) // factor
    return len(set(class_nouns)) * profile.prior.images * draws * channels * side * side * 4


def _latent_shape(settings: ProjectSettings) -> tuple[int, int, int]:
    """The base's where it is on this machine, else Stable Diffusion's at 512 px."""
    from dbcli.diffusion.bases.base import latent_shape

    try:
        return latent_shape(settings.base, settings.revision, **settings.base_choices)
    except DreamboothError:
        return USUAL_SHAPE
