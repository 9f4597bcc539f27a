"""First drafts of masks and captions, made by models and left for a person to correct."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import JudgeMissing, MissingError
from dbcli.project.files.atomic import write_bytes
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import png_bytes
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.photo_notes import captions_of, mask_paths, write_captions
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import verify_photos
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import judge_sources, resolve_profile
from dbcli.workflows.setup.embedded_words import embedded_words

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.metrics.judges.masking import ClassMask

# A subject's photos, those of them that want a mask, by their places, and its class noun -> the masks of these, mode L
# and of their photos' size; None where nothing is found.
DraftMasks = Callable[[Sequence[Path], Sequence[int], str], Iterable["Image.Image | None"]]
# An image and the class noun of what it shows -> a caption that says the noun.
DraftCaption = Callable[["Image.Image", str], str]

# Setting under `judges` -> what a person does without the model.
BY_HAND = {
    "mask": "or paint them: subjects/NAME/masks/0001.png, white where the subject is, black elsewhere",
    "caption": "or write them: subjects/NAME/photos/0001.txt, one line beside each photo",
}


# Why one photo gets no mask by likeness.
ALONE = "there is no other photo to compare it with"


@dataclass(frozen=True)
class Annotators:
    """The models that were asked for."""

    masks: DraftMasks | None = None
    caption: DraftCaption | None = None
    why_no_mask: str = "no {noun} was found"


@dataclass(frozen=True)
class Annotated:
    """The files that were written, the text of each caption, and what was left as it is."""

    masks: list[Path] = field(default_factory=list)
    captions: list[Path] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_annotators(
    layout: Layout,
    *,
    mask: bool | None = None,
    caption: bool | None = None,
    offline: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Annotators:
    """What draws masks and writes captions: on the embedded base its own judges, on others CLIPSeg and Florence-2.

    `mask` None draws them on the embedded base, unless images.mask_loss is 1; `caption` None writes them wherever that
    costs no download, unless images.caption_share is 0. `note` is told of a download, and its size, before it begins.
    Raises MissingError (exit 4) with the ways out where a model that was requested is missing.
    """
    sources, is_embedded = judge_sources(layout), load_settings(layout).is_embedded
    by_judge, by_likeness = (is_embedded and kind not in sources for kind in ("caption", "mask"))

    def loaded(name: str, load: Callable[..., Any]) -> Any:
        try:
            return load(sources.get(name), offline=offline, device=str(pick_device("auto")))
        except JudgeMissing as error:
            hint = f"a local copy in dreambooth.yaml:\n  judges:\n    {name}: /path/to/folder\n  {BY_HAND[name]}"
            raise MissingError(error.message.replace("The judge", "The model for"), hint=hint) from error

    images = resolve_profile(layout)[1].images
    if caption is None:
        caption = images.caption_share > 0 and (by_judge or captioner_here(sources.get("caption")) is not None)
    if mask is None:
        mask = images.mask_loss < 1 and by_likeness
    if not (mask or caption):
        return Annotators()
    from dbcli.diffusion.devices import pick_device

    masks = (_embedded_masks() if by_likeness else _clipseg(loaded)) if mask else None
    draft = (_embedded_captions() if by_judge else _described(loaded, sources, note)) if caption else None
    return Annotators(masks, draft, ALONE) if by_likeness else Annotators(masks, draft)


def captioner_here(source: str | None) -> str | None:
    """What describes photos without a download: what the project names, else Florence-2, else BLIP; None for none."""
    from dbcli.metrics.judges.files import BLIP, FLORENCE, locate

    for one in [source] if source else [FLORENCE, BLIP]:
        try:
            locate("caption", one, offline=True, shards=True)
        except JudgeMissing:
            continue
        return one
    return None


def _described(loaded: Callable[..., Any], sources: Mapping[str, str], note: Callable[[str], None]) -> DraftCaption:
    """Captions by the model that is here already, Florence-2 where none is."""
    from dbcli.metrics.judges.captioning import load_captioner

    def on_download(what: str, size: int | None) -> None:
        note(
            f"Downloading {what}, which describes photos: {'size unknown' if size is None else f'{size / 1e9:.1f} GB'}."
        )

    here = captioner_here(sources.get("caption"))

    def load(source: str | None, **settings: Any) -> Any:
        return load_captioner(source or here, on_download=on_download, **settings)

    captioner = loaded("caption", load)
    return lambda image, noun: str(captioner([image], noun)[0])


def _clipseg(loaded: Callable[..., Any]) -> DraftMasks:
    from dbcli.metrics.judges.masking import load_mask

    mask: ClassMask = loaded("mask", load_mask)
    return lambda paths, wanted, noun: (mask.of(_opened(paths[place]), noun) for place in wanted)


def _embedded_masks() -> DraftMasks:
    """What the photos have in common, as the embedded judge of subjects sees it."""
    from dbcli.metrics.judges.embedded import load_maps
    from dbcli.metrics.judges.shared_parts import FEWEST, draft_masks

    maps = load_maps()

    def drafts(paths: Sequence[Path], wanted: Sequence[int], noun: str) -> Iterable[Image.Image | None]:
        return [None] * len(wanted) if len(paths) < FEWEST else draft_masks(maps, map(_opened, paths), wanted)

    return drafts


def _embedded_captions() -> DraftCaption:
    """The colour behind the thing, as the embedded judge sees it: the scenes that it names in photos are wrong ones."""
    from dbcli.metrics.judges.loading import load_judge
    from dbcli.metrics.judges.naming import background_texts, nearest_background

    clip, words = load_judge("tiny-clip"), embedded_words()
    backgrounds = words.plain_backgrounds
    texts = background_texts(clip, backgrounds, words.nouns)
    return lambda image, noun: f"a {noun} {backgrounds[nearest_background(clip, image, texts)]}"


def annotate(layout: Layout, subject: Subject, annotators: Annotators, progress: Progress) -> Annotated:
    """Writes masks and captions for the photos of a subject that have none; what a person made stays."""
    done = Annotated()
    if annotators.masks is None and annotators.caption is None:
        return done
    paths = verify_photos(layout, subject)
    unmasked = [place for place, mask in enumerate(mask_paths(layout, subject)) if mask is None]
    wanted = unmasked if annotators.masks is not None else []
    work = len(wanted) + len(paths) * (annotators.caption is not None)
    with progress.stage(f"Looking for the {subject.class_noun}", max(1, work)) as stage:
        if annotators.masks is not None and wanted:
            masks = annotators.masks(paths, wanted, subject.class_noun)
            for place, image in zip(wanted, masks, strict=True):
                if image is None:
                    why = annotators.why_no_mask.format(noun=subject.class_noun)
                    done.notes.append(f"{paths[place].name}: {why}, so it gets no mask and counts as a whole")
                else:
                    done.masks.append(_write_mask(layout, subject, paths[place].name, image))
                stage.advance()
        if annotators.caption is not None:
            drafts: list[str | None] = []
            for path, caption in zip(paths, captions_of(layout, subject), strict=True):
                drafts.append(None if caption else _draft(path, subject, annotators.caption))
                stage.advance()
            done.captions.extend(write_captions(layout, subject, drafts))
            done.texts.extend(draft for draft in drafts if draft is not None)
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


def _draft(path: Path, subject: Subject, caption: DraftCaption) -> str:
    return with_subject(caption(_opened(path), subject.class_noun), subject)


def _write_mask(layout: Layout, subject: Subject, name: str, mask: Image.Image) -> Path:
    target = layout.masks_dir(subject.name) / name
    target.parent.mkdir(exist_ok=True)
    write_bytes(target, png_bytes(mask))
    return target


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")
