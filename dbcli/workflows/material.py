"""From photos and class images to what the trainer eats: latents computed once, prompts, and who is dealt when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import Interrupted
from dbcli.project.identifiers import render_with
from dbcli.project.layout import Layout
from dbcli.project.profiles import Profile
from dbcli.project.subjects import Subject, verify_photos
from dbcli.workflows.prior import ClassImages
from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases import Base
    from dbcli.diffusion.images import Posterior
    from dbcli.diffusion.rows import Material


@dataclass(frozen=True)
class Lesson:
    """Everything a run learns from: encoded pictures, distinct prompts, and each subject's share of both."""

    pictures: Posterior
    prompts: list[str]
    materials: list[Material]


def instance_prompt(subject: Subject, caption: str | None, template: str) -> str:
    """What a photo is trained with: its caption, which names the subject, or else the template."""
    words = {subject.name: subject.words}
    if caption is None:
        return render_with(template, words)
    text = render_with(caption, words)
    # A caption that forgot the identifier would teach the whole class.
    return text if subject.words.identifier in text.split() else f"{render_with(template, words)}, {text}"


def gather(
    layout: Layout,
    base: Base,
    subjects: Sequence[Subject],
    class_images: Sequence[ClassImages | None],
    profile: Profile,
    resolution: int,
    progress: Progress,
    should_stop: Callable[[], bool] = lambda: False,
) -> Lesson:
    """Reads and encodes every picture of a run. class_images[i] belongs to subjects[i]; None means no prior.

    Raises SubjectError where photos have changed since they were added, Interrupted between two batches.
    """
    from dbcli.diffusion.images import encode
    from dbcli.diffusion.rows import Material

    pixels: list[torch.Tensor] = []
    prompts: list[str] = []
    known_files: dict[Path, int] = {}
    materials = []
    for number, (subject, of_class) in enumerate(zip(subjects, class_images, strict=True)):
        photos, photo_prompts = _photos(layout, subject, profile, resolution, number, pixels, prompts)
        indices: list[int] = []
        class_prompt = None
        if of_class is not None:
            class_prompt = _index_of(of_class.prompt, prompts)
            indices = [_class_image(file, resolution, pixels, known_files) for file in of_class.files]
        materials.append(Material(photos, photo_prompts, indices, class_prompt))
    with progress.stage("Encoding pictures", len(pixels)) as stage:

        def on_batch(count: int) -> None:
            stage.advance(count)
            if should_stop():
                raise Interrupted("Stopped while encoding pictures.")

        pictures = encode(base.vae, pixels, batch_size=4, on_batch=on_batch)
    return Lesson(pictures, prompts, materials)


def _photos(
    layout: Layout,
    subject: Subject,
    profile: Profile,
    resolution: int,
    number: int,
    pixels: list[torch.Tensor],
    prompts: list[str],
) -> tuple[list[list[int]], list[int]]:
    """Adds a subject's photos to `pixels` and `prompts`; returns their views and their prompts by index."""
    from dbcli.diffusion.images import photo_variants

    photos, photo_prompts = [], []
    for place, (path, entry) in enumerate(zip(verify_photos(layout, subject), subject.photos, strict=True)):
        views = photo_variants(
            path,
            resolution,
            crop=profile.images.crop,
            flip=profile.images.flip,
            seed=profile.train.seed,
            number=number * 100_000 + place,
        )
        photos.append(list(range(len(pixels), len(pixels) + len(views))))
        pixels.extend(views)
        photo_prompts.append(_index_of(instance_prompt(subject, entry.caption, profile.images.template), prompts))
    return photos, photo_prompts


def _class_image(file: Path, resolution: int, pixels: list[torch.Tensor], known: dict[Path, int]) -> int:
    """The index of a class image, read once however many subjects share it."""
    from dbcli.diffusion.images import photo_variants

    if file not in known:
        known[file] = len(pixels)
        pixels.extend(photo_variants(file, resolution, crop="center", flip=False, seed=0, number=0))
    return known[file]


def _index_of(prompt: str, prompts: list[str]) -> int:
    if prompt not in prompts:
        prompts.append(prompt)
    return prompts.index(prompt)
