"""An export loaded back as its receiver loads it, and compared with the run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli import __version__
from dbcli.errors import DreamboothError
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import Words
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.images.generated import image_size, words_of
from dbcli.workflows.models.textual_inversion import INVERSION, by_word, read_words, spellings
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Progress
from dbcli.workflows.sharing.export_metadata import Origin
from dbcli.workflows.sharing.recipients import ADAPTERS, EMBEDDINGS

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraWeights

# A few steps with guidance send every weight into the image; the noise is the same, so nothing else may differ.
CHECK_STEPS = 4
CHECK_GUIDANCE = 3.0
# Half a level of 256 in [-1, 1]: below it no pixel of an 8-bit image can differ by more than one level.
TOLERANCE = 1 / 255
REPORT = "please report this with dreambooth runs show --json"


@dataclass(frozen=True)
class Export:
    """What is to be written: a run's result in one format and precision, at one place; and how models are loaded."""

    layout: Layout
    record: RunRecord
    profile: Profile
    target: str
    dtype: torch.dtype
    path: Path
    origin: Origin
    progress: Progress
    offline: bool

    def load_base(self) -> Base:
        """The project's bare base, on the CPU."""
        return load_model(self.layout, None, self.progress, offline=self.offline, device="cpu")

    def load_run(self) -> Base:
        """The run's model, with the words that came with it where the format has a place for words."""
        bundled = self.target == "diffusers"
        return load_model(self.layout, self.record, self.progress, offline=self.offline, device="cpu", bundled=bundled)


@dataclass(frozen=True)
class Written:
    """What a file has to give back: the image of what it holds, and for an adapter the layers themselves."""

    image: torch.Tensor
    model: Base
    lora: LoraWeights | None = None


def prove(export: Export, written: Written) -> tuple[float, str]:
    """Loads an export with the program it is for, and generates the image of `written` again.

    Returns the largest difference of a pixel, in [-1, 1], and whose loader read the file. Raises DreamboothError
    (exit 1) where the loader refuses the file, leaves out a layer, or the images differ.
    """
    from dbcli.diffusion.formats.diffusers_loading import misread_model, version

    if export.target in ADAPTERS:
        assert written.lora is not None
        loaded = _lora_loaded(export, written.lora)
    elif export.target in EMBEDDINGS:
        loaded = _words_loaded(export)
    else:
        loaded = _model_loaded(export)
    difference = float((written.image - check_image(loaded, export)).abs().max())
    if not difference <= TOLERANCE:
        raise DreamboothError(
            f"The export does not generate what the run generates: a pixel differs by {difference:.3g} on a scale "
            "from -1 to 1. It was removed.",
            hint=REPORT,
        )
    if export.target not in (*ADAPTERS, *EMBEDDINGS):
        del loaded  # two whole models at a time are enough
        _require_none(version(), misread_model(export.path, written.model), "tensors")
    return difference, version() if written.lora is None or not written.lora.products else f"dreambooth {__version__}"


def _lora_loaded(export: Export, written: LoraWeights) -> Base:
    """The base with the layers that diffusers takes from the file; this program's own reading is compared as well.

    LoKr and LoHa are read by this program alone.
    """
    from dbcli.diffusion.adapters.attach import attach_lora
    from dbcli.diffusion.formats.diffusers_loading import lora_as_diffusers_reads_it, misread_layers, version
    from dbcli.diffusion.formats.lora_files import read_lora

    model = export.load_base()
    own = read_lora(export.path, model)
    readings = {"This program": own}
    if not written.products:
        readings[version()] = lora_as_diffusers_reads_it(model, export.path)
    for loader, read in readings.items():
        for part, layers in written.parts.items():
            _require_none(loader, misread_layers(read.part(part), layers))
    attach_lora(model.tunable, readings.get(version(), own))
    return model


def _require_none(loader: str, misread: list[str], kind: str = "layers") -> None:
    if misread:
        raise DreamboothError(
            f"{loader} reads {len(misread)} {kind} of the export wrongly ({misread[0]}). It was removed.",
            hint=REPORT,
        )


def _words_loaded(export: Export) -> Base:
    from dbcli.diffusion.formats.diffusers_loading import load_embedding
    from dbcli.diffusion.word_vectors import answer_to

    subjects = export.record.subjects
    model = export.load_base()
    for subject in subjects:
        # InvokeAI's file is the only one that does not say its word to diffusers.
        spelt = spellings(export.layout, export.record)[str(subject.identifier)]
        load_embedding(model, export.path / by_word(subject), spelt if export.target != "embedding" else None)
    for tokenizer in model.tokenizers.values():
        answer_to(tokenizer, [str(subject.identifier) for subject in subjects])
    read_words(export.path, subjects, by_word)
    return model


def _model_loaded(export: Export) -> Base:
    from dbcli.diffusion.bases.base import load_base
    from dbcli.diffusion.word_vectors import answer_to

    model = load_base(str(export.path.resolve()), offline=True)
    if export.record.method == INVERSION:
        for tokenizer in model.tokenizers.values():
            answer_to(tokenizer, [str(subject.identifier) for subject in export.record.subjects])
    return model


def check_image(model: Base, export: Export) -> torch.Tensor:
    """One image of the run's first subject, `[3, H, W]` in [-1, 1]."""
    from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images

    # An imported LoRA may not say which words it answers to.
    words = next(iter(words_of(export.record).values()), Words("", "photo"))
    size = image_size(model, None, None, export.profile.images.resolution)
    how = SamplingSettings(model.process.samplers()[0], CHECK_STEPS, CHECK_GUIDANCE, 0.0, *size)
    return next(image for _, image in sample_images(model, [SampleRequest(f"a {words.text}", 0)], how)).clamp(-1, 1)


def discard(path: Path) -> None:
    """Removes an export that is not what it should be."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
