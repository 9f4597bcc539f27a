"""A LoRA of another program becomes a finished run of the project: the same words in a prompt, the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import BaseMissing, OtherBase, Unreachable, UnsafeFile, UnsupportedFile
from dbcli.hints import command
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import check_name, printable
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.models.weights import write_imported_lora
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import resolve_profile
from dbcli.workflows.setup.named_paths import require_file
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.sharing.export_metadata import usual_rank_and_alpha
from dbcli.workflows.sharing.imported_runs import ImportRequest, import_run, table_widths, title_of, widths_of
from dbcli.workflows.sharing.imported_words import (
    Trigger,
    asked_words,
    check_rare_words,
    imported_subjects,
    words_of_file,
)
from dbcli.workflows.sharing.named_base import for_another_base

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraWeights

# What PEFT and diffusers put into a folder of their own.
NAMES_IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
# Of alpha / rank. Files in use have at most the rank's root; what is far beyond is damaged or a slip.
MOST_SCALE = 1e6


def import_lora(layout: Layout, request: ImportRequest, progress: Progress, *, offline: bool) -> RunRecord:
    """Reads a LoRA of another program, fits it to the project's base, and keeps it as a finished run.

    Words come from `tokens` and `class_nouns`, pair by pair, else from the file's metadata. Raises UsageError for one
    word without the other, BaseMissing for a file that is missing or lacks a part, UnsupportedFile for another kind of
    file or one for another base, UnsafeFile for a damaged one, and Collision where its words belong to another subject
    and nobody allowed it.
    """
    if request.name is not None:
        check_name(request.name, "run")
    asked = asked_words(request.tokens, request.class_nouns)
    source = _file_of(request.file.expanduser())
    require_file(source, "a LoRA file")
    from dbcli.diffusion.files.model_files import open_weights
    from dbcli.diffusion.formats.kind_checks import check_lora

    # Before torch is imported and the base loaded, which take seconds: another kind of file is told by its header.
    check_lora(open_weights(source))
    with progress.stage(f"Reading {printable(source.name)}", 2) as stage:
        shapes = _without_weights(layout)
        # One for another base is told by its layers, before gigabytes are read.
        lora = None if shapes is None else _read(layout, source, shapes)
        base = load_project_base(layout, progress, offline=offline, device="cpu")
        stage.advance()
        lora = lora or _read(layout, source, base)
        _check_values(lora, source)
        _check_words(lora, base)
        stage.advance()
    if not lora.says_strength:
        progress.warn("The file does not say its alpha, nor does an adapter_config.json beside it; the rank is used.")
    _check_prediction(lora, base, source, progress)
    for line in lora.left_out:
        progress.note(f"{printable(source.name)} contains {printable(line)}: left out.")
    title = request.name or title_of(lora.metadata) or source.stem
    subjects = _subjects(layout, lora, title, asked, progress, request.allow_collision)
    made = import_run(
        layout,
        request,
        source,
        title,
        base=base,
        profile=_profile(layout, lora, base),
        subjects=subjects,
        metadata=lora.metadata,
        write=lambda folder: write_imported_lora(folder, lora, base),
    )
    if not made.subjects:
        progress.warn(_without_words(request, made))
    return made


def _read(layout: Layout, source: Path, base: Base) -> LoraWeights:
    """The LoRA in a file. Raises OtherBase, with the base that the file names, for one of another."""
    from dbcli.diffusion.files.model_files import open_weights
    from dbcli.diffusion.formats.lora_files import read_lora

    try:
        return read_lora(source, base)
    except OtherBase as error:
        metadata = open_weights(source).metadata
        raise for_another_base(error.message, metadata, layout, "import-lora", source) from error


def _without_words(request: ImportRequest, made: RunRecord) -> str:
    """What to type where nobody said the words: a run keeps those that it was made with, so it becomes another one."""
    name = [] if request.name is None else ["--name", request.name]
    words = ["--token", "WORD", "--class", "NOUN"]
    again = command("dreambooth", "import-lora", request.file, *name, *words)
    return (
        f"The file does not say its trigger words, and {made.name} has none. With them: {again}. That makes a second "
        f"run; {command('dreambooth', 'runs', 'rm', made.name)} removes this one."
    )


def _without_weights(layout: Layout) -> Base | None:
    """The project's base as shapes alone; None of one that is not here."""
    from dbcli.diffusion.estimate.meta_base import load_meta_base

    settings = load_settings(layout)
    try:
        return load_meta_base(settings.base, settings.revision, **settings.base_choices)
    except (Unreachable, BaseMissing):
        return None


def _file_of(source: Path) -> Path:
    """The LoRA in a folder that PEFT or diffusers wrote; a file is itself."""
    if not source.is_dir():
        return source
    return next(
        (source / name for name in NAMES_IN_FOLDERS if (source / name).is_file()), source / NAMES_IN_FOLDERS[-1]
    )


def _subjects(
    layout: Layout,
    lora: LoraWeights,
    title: str,
    asked: Sequence[Trigger],
    progress: Progress,
    allow_collision: bool,
) -> list[RunSubject]:
    named = words_of_file(lora.metadata)
    if asked and len(named) > len(asked):
        words = ", ".join(f"{one.identifier} {one.class_noun}" for one in named)
        progress.warn(f"The file names {len(named)} subjects ({words}); {len(asked)} of them got words from --token.")
    for one in lora.words:
        progress.note(f"The file also contains the embedding '{printable(one.word)}': use that word in prompts.")
    check = check_rare_words(layout, allow_collision=allow_collision)
    return imported_subjects(layout, title, asked or named, check)


def _check_values(lora: LoraWeights, file: Path) -> None:
    if not lora.layers:
        raise UnsafeFile(f"{file} contains no layer.")
    for part in lora.parts.values():
        for name, layer in part.items():
            if not all(bool(tensor.isfinite().all()) for tensor in layer.tensors.values()):
                raise UnsafeFile(f"{file}: {name} contains numbers that are not finite; every image would be black.")
            if not abs(layer.scale) <= MOST_SCALE:
                raise UnsafeFile(
                    f"{file}: {name} has the alpha {layer.alpha:g} with rank {layer.rank}; so strong a change of the "
                    "base leaves no image. A file of the program that trained it says another."
                )


def _check_prediction(lora: LoraWeights, base: Base, file: Path, progress: Progress) -> None:
    """Warns of a LoRA for a base of the same shapes that predicts something else; Stable Diffusion 2 has both kinds."""
    from dbcli.diffusion.schedulers.prediction import V, said_by

    try:
        said = said_by(set(), lora.metadata, str(file)).prediction
    except UnsupportedFile:
        return
    if lora.metadata.get("ss_base_model_version") == "sd_v2_v":
        said = V
    if said is not None and said != base.prediction_type:
        progress.warn(
            f"{printable(file.name)} says that it was trained on a base that predicts {said}, but the project's "
            f"predicts {base.prediction_type}: images are likely to be wrong."
        )


def _check_words(lora: LoraWeights, base: Base) -> None:
    """Leaves out embeddings that the base has no place for; the LoRA's layers are good without them."""
    widths = table_widths(base)
    for one in list(lora.words):
        if widths_of(one) != widths:
            lora.words.remove(one)
            its, ours = (" and ".join(map(str, values)) for values in (widths_of(one), widths))
            lora.left_out.append(f"an embedding '{one.word}' of {its} values, not {ours}")


def _profile(layout: Layout, lora: LoraWeights, base: Base) -> Profile:
    """The project's sampling settings, with the commonest rank and alpha of the file's layers."""
    rank, alpha = usual_rank_and_alpha(lora)
    flags = {
        "method": "lora",
        "train.text_encoder": any(lora.part(name) for name in base.encoders),
        "lora.rank": rank,
        "lora.alpha": alpha if alpha > 0 else float(rank),
        "lora.dora": lora.has_dora and not lora.products,
        "lora.kind": lora.kind,
        # It is in the alphas that were read, and a LoKr or LoHa has none.
        "lora.rslora": False,
        "lora.init": "zero",
        "lora.least_rank": 0 if lora.schedule is None else lora.schedule.least,
        # A file does not tell how it was trained, and a LoKr or LoHa has no B.
        "lora.b_rate_ratio": 1.0,
    }
    return resolve_profile(layout, flags=flags)[1]
