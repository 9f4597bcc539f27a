"""First drafts of masks and captions, made by models and left for a person to correct."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import JudgeMissing, MissingError
from dbcli.project.files.atomic import write_bytes
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.subjects.photo_notes import captions_of, mask_paths, write_captions
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import verify_photos
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import judge_sources

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.metrics.judges.captioning import Captioner
    from dbcli.metrics.judges.masking import ClassMask

# Setting under `judges` -> what a person does without the model.
BY_HAND = {
    "mask": "or paint them: subjects/NAME/masks/0001.png, white where the subject is, black elsewhere",
    "caption": "or write them: subjects/NAME/photos/0001.txt, one line beside each photo",
}


@dataclass(frozen=True)
class Annotators:
    """The models that were asked for."""

    mask: ClassMask | None = None
    caption: Captioner | None = None


@dataclass(frozen=True)
class Annotated:
    """The files that were written, and what was left as it is."""

    masks: list[Path]
    captions: list[Path]
    notes: list[str]


def load_annotators(layout: Layout, *, mask: bool, caption: bool, offline: bool) -> Annotators:
    """CLIPSeg and BLIP, as far as requested. Raises MissingError (exit 4) with the ways out where one is missing."""
    sources = judge_sources(layout)

    def loaded(name: str, load: Callable[..., Any]) -> Any:
        try:
            return load(sources.get(name), offline=offline, device=str(pick_device("auto")))
        except JudgeMissing as error:
            hint = f"a local copy in dreambooth.yaml:\n  judges:\n    {name}: /path/to/folder\n  {BY_HAND[name]}"
            raise MissingError(error.message.replace("The judge", "The model for"), hint=hint) from error

    if not (mask or caption):
        return Annotators()
    from dbcli.diffusion.devices import pick_device
    from dbcli.metrics.judges.captioning import load_captioner
    from dbcli.metrics.judges.masking import load_mask

    return Annotators(
        loaded("mask", load_mask) if mask else None, loaded("caption", load_captioner) if caption else None
    )


def annotate(layout: Layout, subject: Subject, annotators: Annotators, progress: Progress) -> Annotated:
    """Writes masks and captions for the photos of a subject that have none; what a person made stays."""
    done = Annotated([], [], [])
    paths = verify_photos(layout, subject) if annotators.mask or annotators.caption else []
    work = len(paths) * ((annotators.mask is not None) + (annotators.caption is not None))
    if not work:
        return done
    with progress.stage(f"Looking for the {subject.class_noun}", work) as stage:
        if annotators.mask is not None:
            for path, mask in zip(paths, mask_paths(layout, subject), strict=True):
                if mask is None:
                    _draw_mask(layout, subject, path, annotators.mask, done)
                stage.advance()
        if annotators.caption is not None:
            drafts: list[str | None] = []
            for path, caption in zip(paths, captions_of(layout, subject), strict=True):
                drafts.append(None if caption else _draft(path, subject, annotators.caption))
                stage.advance()
            done.captions.extend(write_captions(layout, subject, drafts))
    return done


def with_subject(caption: str, subject: Subject) -> str:
    """A caption with `{name}` where it says the class noun, so that the identifier is learnt in its place.

    Where it does not say it, it stays; training then puts the usual prompt before it.
    """
    # A model's braces would be taken for a subject's name.
    text = re.sub(r"[{}]", "", caption)
    for noun in (subject.class_noun, subject.class_noun.split()[-1]):
        found, count = re.subn(rf"\b{re.escape(noun)}\b", f"{{{subject.name}}}", text, count=1, flags=re.IGNORECASE)
        if count:
            return found
    return text


def _draft(path: Path, subject: Subject, captioner: Captioner) -> str:
    return with_subject(captioner([_opened(path)])[0], subject)


def _draw_mask(layout: Layout, subject: Subject, path: Path, mask: ClassMask, done: Annotated) -> None:
    image = mask.of(_opened(path), subject.class_noun)
    if image is None:
        done.notes.append(f"{path.name}: no {subject.class_noun} was found, so it gets no mask and counts as a whole")
        return
    layout.masks_dir(subject.name).mkdir(exist_ok=True)
    target = layout.masks_dir(subject.name) / path.name
    write_bytes(target, png_bytes(image))
    done.masks.append(target)


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")
