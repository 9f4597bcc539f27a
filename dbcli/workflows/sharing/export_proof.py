"""An export loaded back as its receiver loads it, and compared with the run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import DreamboothError
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import Words
from dbcli.workflows.images.generated import image_size, words_of
from dbcli.workflows.models.textual_inversion import INVERSION, by_word, read_words, spellings
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Progress
from dbcli.workflows.sharing.recipients import ADAPTERS, EMBEDDINGS

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraWeights
    from dbcli.workflows.sharing.export import ExportOrder, Written

# A few steps with guidance send every weight into the image; the noise is the same, so nothing else may differ.
CHECK_STEPS = 4
CHECK_GUIDANCE = 3.0
# Half a level of 256 in [-1, 1]: below it no pixel of an 8-bit image can differ by more than one level.
TOLERANCE = 1 / 255
REPORT = "please report this with dreambooth runs show --json"


@dataclass(frozen=True)
class Proof:
    """The largest difference of a pixel, in [-1, 1], and whose loader read the file."""

    difference: float
    loader: str


def prove(layout: Layout, order: ExportOrder, written: Written, progress: Progress, *, offline: bool) -> Proof:
    """Loads an export with the program it is for, and generates the image of `written` again.

    Raises DreamboothError (exit 1) where the loader refuses the file, leaves out a layer, or the images differ.
    """
    from dbcli.diffusion.formats.diffusers_loading import misread_model, version

    if order.target in ADAPTERS:
        assert written.lora is not None
        loaded = _lora_loaded(layout, order, written.lora, progress, offline=offline)
    elif order.target in EMBEDDINGS:
        loaded = _words_loaded(layout, order, progress, offline=offline)
    else:
        loaded = _model_loaded(order)
    difference = float((written.image - check_image(loaded, order)).abs().max())
    if not difference <= TOLERANCE:
        raise DreamboothError(
            f"The export does not generate what the run generates: a pixel differs by {difference:.3g} of 2. "
            "It was removed.",
            hint=REPORT,
        )
    if order.target not in (*ADAPTERS, *EMBEDDINGS):
        del loaded  # two whole models at a time are enough
        _require_none(version(), misread_model(order.path, written.model), "tensors")
    return Proof(difference, version())


def _lora_loaded(
    layout: Layout, order: ExportOrder, written: LoraWeights, progress: Progress, *, offline: bool
) -> Base:
    """The base with the layers that diffusers takes from the file; this program's own reading is compared as well."""
    from dbcli.diffusion.adapters.attach import attach_lora
    from dbcli.diffusion.formats.diffusers_loading import lora_as_diffusers_reads_it, misread_layers, version
    from dbcli.diffusion.formats.lora_files import read_lora

    model = load_model(layout, None, progress, offline=offline, device="cpu")
    own = read_lora(order.path, unet=model.unet, text_encoder=model.text_encoder)
    theirs = lora_as_diffusers_reads_it(model, order.path)
    for loader, read in (("This program", own), (version(), theirs)):
        _require_none(loader, misread_layers(read.unet, written.unet))
        _require_none(loader, misread_layers(read.text_encoder, written.text_encoder))
    attach_lora(model.unet, model.text_encoder, theirs)
    return model


def _require_none(loader: str, misread: list[str], kind: str = "layers") -> None:
    if misread:
        raise DreamboothError(
            f"{loader} reads {len(misread)} {kind} of the export otherwise than they are ({misread[0]}). "
            "It was removed.",
            hint=REPORT,
        )


def _words_loaded(layout: Layout, order: ExportOrder, progress: Progress, *, offline: bool) -> Base:
    from dbcli.diffusion.formats.diffusers_loading import load_embedding
    from dbcli.diffusion.word_vectors import answer_to

    subjects = order.record.subjects
    model = load_model(layout, None, progress, offline=offline, device="cpu")
    for subject in subjects:
        # InvokeAI's file is the only one that does not say its word to diffusers.
        spelt = spellings(layout, order.record)[str(subject.identifier)]
        load_embedding(model, order.path / by_word(subject), spelt if order.target != "embedding" else None)
    answer_to(model.tokenizer, [str(subject.identifier) for subject in subjects])
    read_words(order.path, subjects, by_word)
    return model


def _model_loaded(order: ExportOrder) -> Base:
    from dbcli.diffusion.bases.base import load_base
    from dbcli.diffusion.word_vectors import answer_to

    model = load_base(str(order.path.resolve()), offline=True)
    if order.record.method == INVERSION:
        answer_to(model.tokenizer, [str(subject.identifier) for subject in order.record.subjects])
    return model


def check_image(model: Base, order: ExportOrder) -> torch.Tensor:
    """One image of the run's first subject, `[3, H, W]` in [-1, 1]."""
    from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images

    # An imported LoRA may not say which words it answers to.
    words = next(iter(words_of(order.record).values()), Words("", "photo"))
    size = image_size(model, None, None, order.profile.images.resolution)
    how = SamplingSettings("ddim", CHECK_STEPS, CHECK_GUIDANCE, 0.0, *size)
    return next(image for _, image in sample_images(model, [SampleRequest(f"a {words.text}", 0)], how)).clamp(-1, 1)


def discard(path: Path) -> None:
    """Removes an export that is not what it should be."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
