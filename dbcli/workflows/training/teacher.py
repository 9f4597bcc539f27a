"""The teacher of a run's class term: the base beneath an adapter, or its predictions stored before it is tuned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import DreamboothError, Interrupted
from dbcli.project.class_images.teacher_store import TeacherStore
from dbcli.project.files.layout import Layout
from dbcli.project.settings.profile_settings import PriorSettings, Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.class_images.draw import ClassImages
from dbcli.workflows.progress import Progress
from dbcli.workflows.training.data import Lesson, class_pixels

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.batches import BatchSampler
    from dbcli.diffusion.training.teacher import Stored, Teacher

# Of Stable Diffusion: channels of a latent, pixels it covers, and the side of a picture in px.
USUAL_SHAPE = (4, 8, 512)


def teacher_of(
    layout: Layout,
    base: Base,
    lesson: Lesson,
    plan: BatchSampler,
    class_images: Sequence[ClassImages | None],
    profile: Profile,
    resolution: int,
    progress: Progress,
    should_stop: Callable[[], bool],
    group: ProcessGroup = SINGLE,
) -> Teacher | None:
    """The teacher a profile asks for; None where class images alone do. The base must still be untuned.

    Raises Interrupted between two batches; predictions of the draws that were finished stay.
    """
    from dbcli.diffusion.conditioning import FrozenPrompts
    from dbcli.diffusion.schedulers.samplers import alphas_of
    from dbcli.diffusion.training.teacher import AdapterOff, StoredTeacher

    if profile.prior.source != "teacher" or not any(class_images):
        return None
    if profile.method == "lora":
        device = base.unet.device
        return AdapterOff(base.unet, FrozenPrompts(base.tokenizer, base.text_encoder, lesson.prompts, device))  # type: ignore[arg-type]
    train = profile.train
    epochs = plan.class_epochs(train.steps * train.accumulation * train.batch_size)
    wanted: dict[str, tuple[ClassImages, int]] = {}
    for images, count in zip(class_images, epochs, strict=True):
        if images is not None:
            wanted[images.key] = (images, max(count, wanted[images.key][1] if images.key in wanted else 1))
    stored = {
        key: stored_predictions(
            layout,
            base,
            images,
            profile.prior,
            min(count, profile.prior.teacher_draws),
            resolution,
            progress,
            should_stop,
            group,
        )
        for key, (images, count) in wanted.items()
    }
    places: dict[int, tuple[Stored, int]] = {}
    for material, own in zip(lesson.materials, class_images, strict=True):
        if own is not None:
            places |= {image: (stored[own.key], index) for index, image in enumerate(material.class_images)}
    return StoredTeacher(places, len(alphas_of(base.scheduler_config)))


def stored_predictions(
    layout: Layout,
    base: Base,
    images: ClassImages,
    settings: PriorSettings,
    draws: int,
    resolution: int,
    progress: Progress,
    should_stop: Callable[[], bool],
    group: ProcessGroup = SINGLE,
) -> Stored:
    """The base's predictions for `draws` draws of each class image, computed where they are not stored yet.

    The main rank stores them, and all read them.
    """
    import torch

    from dbcli.diffusion.training.teacher import Stored, read_predictions

    store = TeacherStore.of(
        layout,
        images.key,
        images.files,
        base_hash=base.hash,
        prompt=images.prompt,
        size=resolution,
        seed=settings.seed,
    )
    group.on_main(lambda: _store_missing(store, base, images, settings, draws, resolution, progress, should_stop))
    return Stored(torch.stack([read_predictions(store.file(number)) for number in range(draws)]), settings.seed)


def _store_missing(
    store: TeacherStore,
    base: Base,
    images: ClassImages,
    settings: PriorSettings,
    draws: int,
    resolution: int,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    from dbcli.diffusion.conditioning import embed_prompts
    from dbcli.diffusion.images import encode
    from dbcli.diffusion.schedulers.samplers import alphas_of
    from dbcli.diffusion.training.teacher import predict, write_predictions

    missing = store.missing(draws)
    if not missing:
        return
    # Encoded by themselves and in order, so that the store does not depend on the run that fills it.
    pixels = [class_pixels(file, resolution) for file in images.files]
    posterior = encode(base.vae, pixels, on_batch=lambda count: _go_on(should_stop))
    prompt = embed_prompts(base.tokenizer, base.text_encoder, [images.prompt])
    with progress.stage(f"Teacher predictions: {images.prompt}", len(missing) * len(pixels)) as stage:

        def on_batch(count: int) -> None:
            stage.advance(count)
            _go_on(should_stop)

        def write(number: int, file: Path) -> None:
            made = predict(
                base.unet,
                posterior,
                prompt,
                seed=settings.seed,
                number=number,
                alphas_cumprod=alphas_of(base.scheduler_config),
                batch_size=settings.batch_size,
                on_batch=on_batch,
            )
            write_predictions(file, made)

        store.fill(draws, write, needed_bytes=posterior.mean.nbytes)


def stored_bytes(layout: Layout, profile: Profile, class_nouns: Collection[str]) -> int | None:
    """What the predictions of a run's teacher take on the disk at most; None for a run that stores none.

    The base is asked for its size where it is on this machine, else it is taken to be Stable Diffusion at 512 px.
    """
    from dbcli.diffusion.bases.base import latent_shape

    train, prior = profile.train, profile.prior
    if prior.source != "teacher" or profile.method != "full" or not prior.enabled:
        return None
    settings = load_settings(layout)
    try:
        channels, factor, resolution = latent_shape(
            settings.base, settings.revision, prediction_type=settings.prediction_type, vae=settings.vae
        )
    except DreamboothError:
        channels, factor, resolution = USUAL_SHAPE
    side = (profile.images.resolution or resolution) // factor
    rounds = -(-train.steps * train.accumulation * train.batch_size // prior.images)
    draws = min(rounds, prior.teacher_draws)
    return len(set(class_nouns)) * prior.images * draws * channels * side * side * 4


def _go_on(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted(
            "Stopped while the base's predictions were stored; those of the finished draws are kept.",
            hint="the same command goes on from there",
        )
