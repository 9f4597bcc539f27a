"""From photos and class images to what the trainer eats: latents computed once, prompts, and who is dealt when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import Interrupted
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import render_with
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.photo_notes import mask_paths
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import verify_photos
from dbcli.workflows.class_images.draw import ClassImages
from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.images import Posterior
    from dbcli.diffusion.training.batches import SubjectData


@dataclass(frozen=True)
class Lesson:
    """Everything a run learns from: encoded pictures, distinct prompts, and each subject's share of both.

    loss_weights `[N, 1, h, w]` says how much each place of each picture counts; None if no photo has a mask.
    """

    images: Posterior
    prompts: list[str]
    materials: list[SubjectData]
    loss_weights: torch.Tensor | None = None


@dataclass
class _Pile:
    """What is gathered so far: views of pictures, distinct prompts, and the masks of those views that have one."""

    pixels: list[torch.Tensor] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    masks: dict[int, torch.Tensor] = field(default_factory=dict)


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
    from dbcli.diffusion.training.batches import SubjectData

    pile = _Pile()
    known_files: dict[Path, int] = {}
    materials = []
    for number, (subject, of_class) in enumerate(zip(subjects, class_images, strict=True)):
        photos, photo_prompts = _photos(layout, subject, profile, (resolution, base.vae_factor), number, pile)
        indices: list[int] = []
        class_prompt = None
        if of_class is not None:
            class_prompt = _index_of(of_class.prompt, pile.prompts)
            indices = [_class_image(file, resolution, pile.pixels, known_files) for file in of_class.files]
        materials.append(SubjectData(photos, photo_prompts, indices, class_prompt))
    with progress.stage("Encoding pictures", len(pile.pixels)) as stage:

        def on_batch(count: int) -> None:
            stage.advance(count)
            if should_stop():
                raise Interrupted("Stopped while encoding pictures.")

        images = encode(base.vae, pile.pixels, on_batch=on_batch)
    _tell_masks(pile, materials, profile, progress)
    return Lesson(images, pile.prompts, materials, loss_weights(pile.masks, images, profile.images.mask_loss))


def _tell_masks(pile: _Pile, materials: Sequence[SubjectData], profile: Profile, progress: Progress) -> None:
    photos = [views for material in materials for views in material.photos]
    masked = sum(views[0] in pile.masks for views in photos)
    if masked:
        background = profile.images.mask_loss
        progress.note(f"masks of {masked} of {len(photos)} photos; outside of them the loss counts {background:g}")


def loss_weights(masks: Mapping[int, torch.Tensor], images: Posterior, background: float) -> torch.Tensor | None:
    """How much each place of N pictures counts, float32 `[N, 1, h, w]`: 1, and `background` where a mask is 0.

    Pictures without a mask, class images above all, count everywhere. None without any mask.
    """
    import torch

    if not masks:
        return None
    weights = torch.ones(len(images), 1, *images.mean.shape[-2:])
    for index, mask in masks.items():
        weights[index] = background + (1 - background) * mask
    return weights


def _photos(
    layout: Layout,
    subject: Subject,
    profile: Profile,
    scale: tuple[int, int],
    number: int,
    pile: _Pile,
) -> tuple[list[list[int]], list[int]]:
    """Adds a subject's photos to the pile; returns their views and their prompts by index.

    `scale` is the resolution in px and the pixels that a latent covers along one side.
    """
    from dbcli.diffusion.images import mask_variants, photo_variants

    resolution, vae_factor = scale
    images = profile.images
    masks = mask_paths(layout, subject) if images.mask_loss < 1 else [None for _ in subject.photos]
    files = zip(verify_photos(layout, subject), subject.photos, masks, strict=True)
    photos, photo_prompts = [], []
    for place, (path, entry, mask) in enumerate(files):
        # The same for a photo and its mask, so that both are cropped and mirrored alike.
        how = {"crop": images.crop, "flip": images.flip, "seed": profile.train.seed, "number": number * 100_000 + place}
        views = photo_variants(path, resolution, **how)
        indices = list(range(len(pile.pixels), len(pile.pixels) + len(views)))
        if mask is not None:
            found = mask_variants(mask, (entry.width, entry.height), resolution // vae_factor, **how)
            pile.masks.update(zip(indices, found, strict=True))
        photos.append(indices)
        pile.pixels.extend(views)
        photo_prompts.append(_index_of(instance_prompt(subject, entry.caption, images.template), pile.prompts))
    return photos, photo_prompts


def _class_image(file: Path, resolution: int, pixels: list[torch.Tensor], known: dict[Path, int]) -> int:
    """The index of a class image, read once however many subjects share it."""
    if file not in known:
        known[file] = len(pixels)
        pixels.append(class_pixels(file, resolution))
    return known[file]


def class_pixels(file: Path, resolution: int) -> torch.Tensor:
    """A class image as float32 `[3, resolution, resolution]` in [-1, 1]."""
    from dbcli.diffusion.images import photo_variants

    return photo_variants(file, resolution, crop="center", flip=False, seed=0, number=0)[0]


def _index_of(prompt: str, prompts: list[str]) -> int:
    if prompt not in prompts:
        prompts.append(prompt)
    return prompts.index(prompt)
