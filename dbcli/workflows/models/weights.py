"""The result of a run on disk, and back in memory as a model that draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.project.files.atomic import remove_leftovers
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import write_whole
from dbcli.project.runs.checkpoints import LORA_FILE, checked_weights
from dbcli.project.runs.run_store import RunRecord
from dbcli.workflows.models.at_checkpoint import is_result, put_checkpoint, require_base, require_checkpoint
from dbcli.workflows.models.textual_inversion import INVERSION, read_words, write_words
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.open import load_project_base

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from dbcli.diffusion.adapters.attach import Trainable
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraWeights
    from dbcli.diffusion.word_vectors import WordVectors

# Embeddings that came with a LoRA, a file each, beside it.
BUNDLED_WORDS = "words"


def save_tuned(layout: Layout, record: RunRecord, base: Base, trainable: Trainable) -> None:
    """Writes a run's weights in one step: a diffusers folder (full), a diffusers LoRA file, or word vectors."""
    import torch

    from dbcli.diffusion.formats.diffusers_folder import write_base

    final = layout.weights_dir(record.name)
    remove_leftovers(final.parent)

    def write(folder: Path) -> None:
        if trainable.method == "full":
            write_base(folder, base, dtype=torch.float32)
        elif trainable.method == INVERSION:
            write_words(folder, record.subjects, base, trainable)
        else:
            _write_lora(folder / LORA_FILE, base)

    write_whole(final, write, needed_bytes=_size_bytes(base, trainable))


def _size_bytes(base: Base, trainable: Trainable) -> int:
    if trainable.method != "full":
        return sum(tensor.numel() * 4 for tensor in [*trainable.tensors.values(), *trainable.constants.values()])
    return sum(tensor.numel() * 4 for part in base.networks.values() for tensor in part.parameters())


def _write_lora(file: Path, base: Base) -> None:

    from dbcli.diffusion.formats.lora import attached_lora

    # A LoRA that went on from another one has alphas of its own, and maybe layers for a text encoder it did not train.
    _write_kept(file, attached_lora(base.tunable), base)


def _write_kept(file: Path, lora: LoraWeights, base: Base) -> None:
    """Writes an adapter as a run keeps it, in full precision."""
    import torch

    from dbcli.diffusion.formats.lora_writing import write_diffusers_lora, write_kohya_lora

    if lora.by_input or lora.is_mixed or lora.products:
        # diffusers' form has no place for lengths of inputs or of some layers, LoKr and LoHa; read_lora reads them all.
        write_kohya_lora(file, lora, base.family, dtype=torch.float32)
    else:
        schedule = lora.schedule
        metadata = {} if schedule is None else schedule.metadata
        write_diffusers_lora(file, lora, base, dtype=torch.float32, metadata=metadata)


def write_imported_lora(folder: Path, lora: LoraWeights, base: Base) -> None:
    """Writes a LoRA of another program as a run keeps it, in full precision, with the embeddings that came with it."""
    from dbcli.diffusion.formats.embedding_files import write_embedding

    _write_kept(folder / LORA_FILE, lora, base)
    for number, one in enumerate(lora.words, start=1):
        (folder / BUNDLED_WORDS).mkdir(exist_ok=True)
        write_embedding(folder / BUNDLED_WORDS / f"{number:04d}.safetensors", one)


def bundled_words(folder: Path) -> list[WordVectors]:
    """The embeddings that came with an imported LoRA, from the folder of its run's weights."""
    from dbcli.diffusion.formats.embedding_files import read_embedding

    return [read_embedding(file) for file in sorted((folder / BUNDLED_WORDS).glob("*.safetensors"))]


def load_model(
    layout: Layout,
    record: RunRecord | None,
    progress: Progress,
    *,
    offline: bool,
    device: str | torch.device,
    checkpoint: int | None = None,
    bundled: bool = True,
) -> Base:
    """The model a run made, or the project's bare base for None, ready to draw; as it was at the step `checkpoint`.

    `bundled` False leaves out the embeddings that came with an imported LoRA, for what has no place for words.
    Raises RunMissing where the weights are gone, Refused where the base is no longer the run's.
    """
    if record is None:
        return load_project_base(layout, progress, offline=offline, device=device)
    if checkpoint is not None and not is_result(layout, record, checkpoint):
        require_checkpoint(layout, record, checkpoint)
        base = load_project_base(layout, progress, offline=offline, device=device)
        put_checkpoint(layout, record, checkpoint, base)
        return base
    if record.method == "full":
        from dbcli.diffusion.bases.base import load_base

        return load_base(str(checked_weights(layout, record)), device=device, offline=True)
    from dbcli.diffusion.adapters.attach import attach_lora
    from dbcli.diffusion.adapters.mix import merge_loras
    from dbcli.diffusion.word_vectors import add_words

    folder = checked_weights(layout, record)
    base = load_project_base(layout, progress, offline=offline, device=device)
    if record.method == INVERSION:
        require_base(record, base)
        add_words(base, read_words(folder, record.subjects))
        return base
    lora = _lora_of(record, folder / LORA_FILE, base)
    if lora.only_merges:
        # DoRA along the inputs is nothing that PEFT knows.
        merge_loras(base.tunable, [(lora, 1.0)])
    else:
        attach_lora(base.tunable, lora)
    add_words(base, bundled_words(folder) if bundled else [])
    return base


def load_with_loras(
    layout: Layout,
    runs: Sequence[tuple[RunRecord, float]],
    progress: Progress,
    *,
    offline: bool,
    device: str | torch.device,
) -> Base:
    """The project's base with several LoRA runs in its weights, each by its own share.

    Raises RunMissing where weights are gone, Refused where the base is no longer that of a run.
    """
    from dbcli.diffusion.adapters.mix import merge_loras
    from dbcli.diffusion.word_vectors import add_words

    folders = [checked_weights(layout, record) for record, _ in runs]
    base = load_project_base(layout, progress, offline=offline, device=device)
    loras = [
        (_lora_of(record, folder / LORA_FILE, base), weight)
        for (record, weight), folder in zip(runs, folders, strict=True)
    ]
    merge_loras(base.tunable, loras)
    # One word is one thing: where two runs bring it along, the first one's vectors stand for it.
    words = {one.word: one for folder in reversed(folders) for one in bundled_words(folder)}
    add_words(base, list(words.values()))
    return base


def _lora_of(record: RunRecord, file: Path, base: Base) -> LoraWeights:
    from dbcli.diffusion.formats.lora_files import read_lora

    require_base(record, base)
    return read_lora(file, base)
