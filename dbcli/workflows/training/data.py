"""From photos and class images to what the trainer reads: latents encoded once, prompts, and each subject's share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.buckets import Box, Size, frame_of, size_for
from dbcli.errors import Interrupted
from dbcli.project.prompts.identifiers import render_with
from dbcli.project.prompts.shuffling import SHUFFLED_ORDERS, shuffled_caption
from dbcli.project.settings.profile_settings import ImageSettings
from dbcli.project.subjects.photo_notes import mask_paths
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import verify_photos
from dbcli.prompt_text import with_article
from dbcli.workflows.class_images.generate import ClassImages
from dbcli.workflows.class_images.sentences import teaches_empty_prompt
from dbcli.workflows.probes.held_out import HeldOutPhoto
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.training.scenes import Scenes, kept_places

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.families.conditioning import Frame
    from dbcli.diffusion.images import Latents
    from dbcli.diffusion.training.batches import SentenceData, SubjectData


@dataclass(frozen=True)
class TrainingData:
    """Everything a run learns from: encoded images, distinct prompts, and each subject's share of both.

    loss_weights[i] `[1, h, w]` says how much each latent of image i counts; None if no photo has a mask. `sizes` are
    the numbers of the images' sizes, `frames` how they came to them, where photos are not cut to squares, and
    `class_images` the indices of files by the size they are shown at. Prompts with other orders of their words have
    these under `orders`; `empty_prompt` is the empty one, where photos are taught with it, too. `held_out` are photos
    that no row shows.
    """

    images: Latents
    prompts: list[str]
    subjects: list[SubjectData]
    loss_weights: list[torch.Tensor] | None = None
    sizes: list[int] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    class_images: dict[tuple[Path, Size], int] = field(default_factory=dict)
    orders: dict[int, list[int]] = field(default_factory=dict)
    empty_prompt: int | None = None
    held_out: list[HeldOutPhoto] = field(default_factory=list)

    @property
    def places(self) -> int:
        """Height times width of the largest latents."""
        return max(math.prod(self.images.shape_of(index)[1:]) for index in range(len(self.images)))


def instance_prompt(subject: Subject, caption: str | None, template: str, templates: Sequence[str] = ()) -> str:
    """What a photo is trained with in a row that has one of the sentences `templates`, `template`.

    A caption that begins as one of the sentences does goes on from this one: "a {dog} on grass" is taught as "a photo
    of a sks dog on grass" too. One that names the subject otherwise stands alone, any other behind the sentence.
    """
    return "".join(_sentence_and_caption(subject, caption, template, templates))


def shuffled_prompts(
    subject: Subject, caption: str, template: str, images: ImageSettings, *, seed: int, number: int
) -> list[str]:
    """The orders that `images.caption_shuffle` gives a captioned prompt, by a run's seed and the photo's number.

    Sentence, identifier and class noun stay as they are, wherever the rest goes.
    """
    from dbcli.diffusion.noise import permutation_of

    sentence, rest = _sentence_and_caption(subject, caption, template, images.templates)
    return [
        shuffled_caption(
            sentence,
            rest,
            subject.words.text,
            images.caption_shuffle,
            lambda count, turn=turn: permutation_of(count, seed, "shuffle", turn, number),  # type: ignore[misc]
        )
        for turn in range(SHUFFLED_ORDERS)
    ]


def _sentence_and_caption(
    subject: Subject, caption: str | None, template: str, templates: Sequence[str]
) -> tuple[str, str]:
    """The two parts of `instance_prompt`, of which one may be empty."""
    words = {subject.name: subject.words}
    sentence = render_with(template, words)
    if caption is None:
        return sentence, ""
    text = render_with(caption, words)
    heads = sorted((render_with(one, words) for one in templates or [template]), key=len, reverse=True)
    head = next((one for one in heads if re.match(rf"{re.escape(one)}(?!\w)", text)), None)
    if head is not None:
        return sentence, text[len(head) :]
    # A caption that forgot the identifier would teach the whole class.
    return ("", text) if subject.words.identifier in text.split() else (sentence, f", {text}")


def encode_data(
    run: RunContext, base: Base, class_images: Sequence[Sequence[ClassImages]], scenes: Scenes | None = None
) -> TrainingData:
    """Reads and encodes every image of a run. class_images[i] are those of its i-th subject, each with its sentence.

    `scenes` are what photos' subjects are shown in front of, cut out, beside plain colours. Raises SubjectError where
    photos have changed since they were added, Interrupted between two batches.
    """
    from dbcli.diffusion.images import encode_sizes
    from dbcli.diffusion.training.batches import SubjectData

    read = _Images(run, run.sizes(base), base.vae_factor, scenes or {})
    subjects = []
    for number, (subject, of_class) in enumerate(zip(run.subjects, class_images, strict=True)):
        shown = read.photos(subject, number)
        sentences = read.sentences(subject, shown)
        for own in of_class:
            files, prompt = [read.class_image(one, own.size) for one in own.files], read.prompt(own.prompt)
            empty = read.prompt("") if teaches_empty_prompt(run.profile) else None
            sentence = sentences[own.sentence]
            files = [*sentence.class_images, *files]
            sentences[own.sentence] = replace(sentence, class_images=files, class_prompt=prompt, empty_prompt=empty)
        subjects.append(SubjectData([one.views for one in shown], sentences))
    empty = read.prompt("") if run.profile.images.empty_share else None
    with run.progress.stage("Encoding images", len(read.pixels)) as stage:

        def on_batch(count: int) -> None:
            stage.advance(count)
            if run.stop():
                raise Interrupted("Stopped while encoding images.")

        images = encode_sizes(base.vae, read.pixels, on_batch=on_batch)
    background = run.profile.images.mask_loss
    if read.masks:
        photos = sum(len(subject.photos) for subject in run.subjects)
        note = f"masks of {read.masked} of {photos} photos; outside them the loss weight is {background:g}"
        run.progress.note(note)
    weights = loss_weights(read.masks, images, background)
    return TrainingData(
        images,
        read.prompts,
        subjects,
        weights,
        read.numbers,
        read.frames,
        read.class_images,
        read.orders,
        empty,
        read.held_out,
    )


def loss_weights(masks: Mapping[int, torch.Tensor], images: Latents, background: float) -> list[torch.Tensor] | None:
    """How much each latent of every image counts, float32 `[1, h, w]`: 1, and `background` where a mask is 0.

    Images without a mask, class images above all, count everywhere. None without any mask.
    """
    import torch

    if not masks:
        return None
    weights = [torch.ones(1, *images.shape_of(index)[1:]) for index in range(len(images))]
    for index, mask in masks.items():
        weights[index] = background + (1 - background) * mask
    return weights


@dataclass(frozen=True)
class _Photo:
    """A photo, its size (width, height), its mask, and its subject's and its own place in the run."""

    path: Path
    size: tuple[int, int]
    mask: Path | None
    subject: int
    place: int

    @property
    def number(self) -> int:
        """Its number among the photos of all subjects."""
        return self.subject * 100_000 + self.place


@dataclass(frozen=True)
class _Views:
    """A photo at its size, cut along boxes, mirrored views last: pixels, and of its mask, if it has one, as much.

    masks are of the latents' size, opacities of the pixels'.
    """

    photo: _Photo
    size: Size
    boxes: Sequence[Box]
    pixels: Sequence[torch.Tensor]
    masks: Sequence[torch.Tensor] = ()
    opacities: Sequence[torch.Tensor] = ()

    @property
    def first(self) -> _Views:
        """The first view alone."""
        one = slice(1)
        return replace(
            self, boxes=self.boxes[one], pixels=self.pixels[one], masks=self.masks[one], opacities=self.opacities[one]
        )

    def in_front_of(self, ground: torch.Tensor) -> _Views:
        """Its subject, cut out, in front of an image of its size."""
        cut = zip(self.pixels, self.opacities, strict=True)
        return replace(self, pixels=[view * shown + ground * (1 - shown) for view, shown in cut])


@dataclass(frozen=True)
class _Shown:
    """What a row may show: a photo, or its subject cut out; its views, by index, and what is said of it.

    A cutout is never shown without its caption: the sentence alone belongs to the photos.
    """

    views: list[int]
    caption: str | None
    is_cutout: bool = False


@dataclass
class _Images:
    """What is read so far: views of images, prompts, masks of views that have one, and how many photos have one."""

    run: RunContext
    sizes: list[Size]
    vae_factor: int
    scenes: Scenes
    pixels: list[torch.Tensor] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    masks: dict[int, torch.Tensor] = field(default_factory=dict)
    masked: int = 0
    class_images: dict[tuple[Path, Size], int] = field(default_factory=dict)
    orders: dict[int, list[int]] = field(default_factory=dict)
    held_out: list[HeldOutPhoto] = field(default_factory=list)

    def photos(self, subject: Subject, number: int) -> list[_Shown]:
        """Reads a subject's photos, and those with a mask cut out, too; some may be kept back."""
        layout, images = self.run.layout, self.run.profile.images
        masks = mask_paths(layout, subject) if images.mask_loss < 1 else [None for _ in subject.photos]
        files = zip(verify_photos(layout, subject), subject.photos, masks, strict=True)
        shown, cut_out, kept_back = [], [], kept_places(self.run, number)
        for place, (path, entry, mask) in enumerate(files):
            photo = _Photo(path, (entry.width, entry.height), mask, number, place)
            views = self._read(photo)
            if place in kept_back:
                self._keep_back(subject, place, entry.caption, views)
                continue
            shown.append(_Shown(self._take(views), entry.caption))
            if mask is not None:
                self.masked += 1
                cut_out += [
                    _Shown(self._take(views.in_front_of(behind)), f"a {{{subject.name}}} {where}", True)
                    for where, behind in self._grounds(photo)
                ]
        return shown + cut_out

    def _keep_back(self, subject: Subject, place: int, caption: str | None, views: _Views) -> None:
        """Takes in the first view of a photo that is kept back, under the first sentence with the photo's caption."""
        from dbcli.diffusion.training.batches import Row

        images = self.run.profile.images
        (image,) = self._take(views.first)
        known = caption if images.caption_share else None
        prompt = self.prompt(instance_prompt(subject, known, images.templates[0], images.templates))
        self.held_out.append(HeldOutPhoto(subject.name, place + 1, Row(image, prompt)))
        self.masked += bool(views.masks)

    def _read(self, photo: _Photo) -> _Views:
        """Reads a photo and its mask, once for all that its subject is shown in front of."""
        from dbcli.diffusion.cutouts import opacity_variants
        from dbcli.diffusion.images import crop_boxes, mask_variants, photo_variants

        images, seed, size = self.run.profile.images, self.run.profile.train.seed, size_for(photo.size, self.sizes)
        # The same for a photo and its mask, so that both are cropped and mirrored alike.
        boxes = crop_boxes(
            images.crop, *photo.size, seed=seed, number=photo.number, mask=photo.mask, aspect=size[0] / size[1]
        )
        pixels = photo_variants(photo.path, size, boxes, flip=images.flip)
        if photo.mask is None:
            return _Views(photo, size, boxes, pixels)
        latents = size[0] // self.vae_factor, size[1] // self.vae_factor
        masks = mask_variants(photo.mask, photo.size, latents, boxes, flip=images.flip)
        opacities = opacity_variants(photo.mask, photo.size, boxes, size, flip=images.flip)
        return _Views(photo, size, boxes, pixels, masks, opacities)

    def _take(self, views: _Views) -> list[int]:
        """Takes in the views of a photo with their masks; their indices."""
        indices = self._add(views.pixels, views.size, views.photo.size, views.boxes)
        if views.masks:
            self.masks.update(zip(indices, views.masks, strict=True))
        return indices

    def _add(self, views: Sequence[torch.Tensor], size: Size, before: Size, boxes: Sequence[Box]) -> list[int]:
        """Takes in views of an image that was cut along boxes out of another size; mirrored ones come last."""
        indices = list(range(len(self.pixels), len(self.pixels) + len(views)))
        self.pixels.extend(views)
        self.numbers.extend([self.sizes.index(size)] * len(views))
        if self.run.profile.images.buckets == "auto":
            is_whole = self.run.profile.images.crop == "subject"
            frames = [
                frame_of(before, box, size, is_whole=is_whole, mirrored=one) for one in (False, True) for box in boxes
            ]
            self.frames.extend(frames[: len(views)])
        return indices

    def _grounds(self, photo: _Photo) -> Iterator[tuple[str, torch.Tensor]]:
        """What a photo's subject is shown in front of, cut out: where that is, as a caption says it, and its pixels."""
        from dbcli.diffusion.cutouts import colours_of, ground

        seed, size = self.run.profile.train.seed, size_for(photo.size, self.sizes)
        for colour in colours_of(seed, photo.number, self.run.profile.images.cutouts):
            pixels = ground(size, colour, seed=seed, number=photo.number)
            yield f"on {with_article(colour)} background", pixels
        yield from self.scenes.get((photo.subject, photo.place), [])

    def sentences(self, subject: Subject, shown: Sequence[_Shown]) -> list[SentenceData]:
        """The sentences of a subject, as they stand for each of its photos with its caption and without."""
        from dbcli.diffusion.training.batches import SentenceData

        images = self.run.profile.images

        def prompts(template: str, *, captioned: bool) -> list[int]:
            used = [one.caption if captioned or one.is_cutout else None for one in shown]
            return [self._prompt_of(subject, one, template, number) for number, one in enumerate(used)]

        # Only prompts that come up: how many are encoded at once decides last bits of each.
        return [
            SentenceData(
                prompts(one, captioned=images.caption_share == 1), prompts(one, captioned=images.caption_share > 0)
            )
            for one in images.templates
        ]

    def _prompt_of(self, subject: Subject, caption: str | None, template: str, number: int) -> int:
        """The index of what a photo is trained with, whose orders are taken in beside it."""
        images, seed = self.run.profile.images, self.run.profile.train.seed
        index = self.prompt(instance_prompt(subject, caption, template, images.templates))
        # One that several photos share has one set of orders: those of another would be encoded, and never come up.
        if caption is not None and images.caption_shuffle != "off" and index not in self.orders:
            texts = shuffled_prompts(subject, caption, template, images, seed=seed, number=number)
            self.orders[index] = [self.prompt(text) for text in texts]
        return index

    def prompt(self, text: str) -> int:
        """The index of a prompt."""
        if text not in self.prompts:
            self.prompts.append(text)
        return self.prompts.index(text)

    def class_image(self, file: Path, size: Size) -> int:
        """The index of a class image at a size, read once however many subjects share it."""
        if (file, size) not in self.class_images:
            # Told of as drawn at its size, which it was unless it is somebody's photo.
            (index,) = self._add([class_pixels(file, size)], size, size, [(0, 0, *size)])
            self.class_images[file, size] = index
        return self.class_images[file, size]


def class_pixels(file: Path, size: Size) -> torch.Tensor:
    """A class image as float32 `[3, height, width]` in [-1, 1]."""
    from dbcli.diffusion.images import photo_variants

    views: list[torch.Tensor] = photo_variants(file, size)
    return views[0]
