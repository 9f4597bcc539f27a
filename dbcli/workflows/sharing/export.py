"""Taking a run to other tools: written in their format, loaded back by their loader, and one image compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import Refused, UnsupportedFile, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.token_claims import SubjectWord
from dbcli.project.runs.checkpoints import LORA_FILE, checked_weights
from dbcli.project.runs.run_store import RunRecord, append_event
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.models.textual_inversion import INVERSION, export_words, read_words, spellings
from dbcli.workflows.models.weights import bundled_words
from dbcli.workflows.progress import Progress
from dbcli.workflows.runs.choose import chosen_run
from dbcli.workflows.setup.base_facts import is_flow
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.setup.named_paths import check_writable
from dbcli.workflows.sharing.export_metadata import Origin, kohya_of, modelspec_of
from dbcli.workflows.sharing.export_proof import Export, Written, check_image, discard, prove
from dbcli.workflows.sharing.recipients import ADAPTERS, EMBEDDINGS, Recipient, recipient_of
from dbcli.workflows.subjects.identifiers import clashes_among

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import Layer, LoraWeights
    from dbcli.diffusion.formats.metadata import Addition

TARGETS = ("diffusers", "checkpoint", "lora", "kohya", "embedding", "embedding-invokeai")
# What each method's result can be written as, and why it cannot be written as another.
TARGETS_OF = {
    "full": (("diffusers", "checkpoint"), "is a full run and has no {target} in it"),
    "lora": (("diffusers", "checkpoint", "lora", "kohya"), "is a lora run and has no {target} in it"),
    INVERSION: (
        ("embedding", "embedding-invokeai", "diffusers"),
        "learnt a word and nothing else, and a {target} file has no place for words",
    ),
}
# Several files each: an embedding's is named by its word, and there is one a subject.
FOLDERS = ("diffusers", *EMBEDDINGS)
PRECISIONS = ("fp16", "fp32")
# What the kinds of a lora run's adapter are called.
KINDS = {"lora": "LoRA", "lokr": "LoKr", "loha": "LoHa"}


@dataclass(frozen=True)
class Exported:
    """One export: its path and format, how it was proved, and what its receiver has to know.

    `difference` is the largest of a pixel, in [-1, 1], between the run's image and that of the file as `proved_by`
    loads it.
    """

    run: str
    target: str
    path: Path
    difference: float
    proved_by: str
    recipient: Recipient


@dataclass(frozen=True)
class ExportRequest:
    """A run to be written for `target`, into `out` or exports/; `precision` is fp16 or fp32.

    `recorded_as` is the place that the run's record names, where `out` is only on the way there.
    """

    run: str
    target: str = "checkpoint"
    precision: str = "fp16"
    out: Path | None = None
    origin: Origin = field(default_factory=Origin)
    allow_collision: bool = False
    recorded_as: str | None = None


def export_run(layout: Layout, request: ExportRequest, progress: Progress, *, offline: bool) -> Exported:
    """Writes a run in another tool's format and proves it by loading it back with that tool's loader.

    Raises UsageError for a format the run cannot take, UnsupportedFile for DoRA in kohya's format, Refused if `out`
    exists, Collision where two of the run's subjects share a token and nobody allowed it, and DreamboothError (exit 1),
    with the figure and without the file, if the loaded export does not give what the run gives.
    """
    export = _checked(layout, request, progress, offline=offline)
    record, path = export.record, export.path
    # Whoever loads the file cannot know that its words do not keep its subjects apart.
    words = [SubjectWord(one.name, one.identifier or "", one.class_noun) for one in record.subjects]
    title = f"The subjects of {record.name} collide"
    collisions = clashes_among(layout, words, title, allow=request.allow_collision)
    if path.exists():
        raise Refused(f"{path} already exists.", hint="--out PATH chooses another place")
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress.stage(f"Exporting {record.name} to {export.target}", 3) as stage:
        written = _write(export)
        stage.advance(2)
        try:
            difference, loader = prove(export, written)
        except BaseException:
            discard(path)
            raise
        stage.advance()
    if collisions:
        event = {"event": "exported", "path": request.recorded_as or str(path), "allowed_collisions": list(collisions)}
        append_event(layout, record.name, event)
    recipient = recipient_of(record, export.target, written.model, written.lora, spellings(layout, record))
    recipient = replace(recipient, notes=[*recipient.notes, *_words_left_out(export)])
    for line in recipient.notes:
        progress.note(line)
    return Exported(record.name, export.target, path, difference, loader, recipient)


def exported_run(layout: Layout, run: str) -> RunRecord:
    """The finished run meant. Raises UsageError for the bare base, UnsupportedFile for a run no format is right for."""
    record = chosen_run(layout, run)
    if record is None:
        raise UsageError("The bare base is not a run.", hint="dreambooth runs list")
    if record.method == "lora" and profile_of(layout, record).lora.least_rank > 0:
        raise UnsupportedFile(
            f"{record.name} is a T-LoRA: which of its ranks are in force depends on the timestep, which the programs "
            "that exports are for do not follow; with all of them in force it would draw something else.",
            hint="train with lora.least_rank=0 for other programs",
        )
    return record


def _checked(layout: Layout, request: ExportRequest, progress: Progress, *, offline: bool) -> Export:
    """What can be known to be wrong before anything is loaded is said here."""
    target, precision, origin = request.target, request.precision, request.origin
    for option, value, known, shown in (
        ("--to", target, TARGETS, (*TARGETS, "comfyui", "hub")),
        ("--precision", precision, PRECISIONS, PRECISIONS),
    ):
        if value not in known:
            raise UsageError(f"{option} is one of {', '.join(shown)}, not '{printable(value)}'.")
    if target == "diffusers" and origin != Origin():
        raise UsageError(
            "A diffusers folder has no place for --author and --licence.",
            hint="--to checkpoint, or --to hub, whose card names the licence",
        )
    record = exported_run(layout, request.run)
    possible, reason = TARGETS_OF[record.method]
    profile = profile_of(layout, record)
    merges = not is_flow(load_settings(layout).base)
    if target not in possible:
        fitting = _fitting(profile, merges=merges) if record.method == "lora" else possible
        raise UsageError(f"{record.name} {reason.format(target=target)}.", hint=_any_of(fitting))
    if record.method == "lora" and target not in ADAPTERS and not merges:
        raise _no_whole_model(record, profile, target)
    if target == "kohya" and profile.lora.dora:
        raise no_dora(record, merges=merges)
    if target == "lora" and profile.lora.kind != "lora":
        raise _no_product(record, profile.lora.kind, merges=merges)
    name = f"{record.name}-{target}" + ("" if target in FOLDERS else ".safetensors")
    path = request.out or layout.exports_dir / name
    if target not in FOLDERS and path.suffix != ".safetensors":  # by which every program knows the format
        raise UsageError(f"A {target} file's name ends in .safetensors; {path} does not.", f"--out {path}.safetensors")
    check_writable(path.parent)
    import torch

    dtype = torch.float16 if precision == "fp16" else torch.float32
    return Export(layout, record, profile, target, dtype, path, origin, progress, offline)


def _words_left_out(export: Export) -> list[str]:
    """A line for every embedding that came with an imported LoRA, where a file has no place for words."""
    if export.record.method != "lora" or export.target == "diffusers":
        return []
    words = [printable(one.word) for one in bundled_words(export.layout.weights_dir(export.record.name))]
    return [f"The embedding '{word}' that came with it is not in this file (--to diffusers has it)." for word in words]


def no_dora(record: RunRecord, *, merges: bool) -> UnsupportedFile:
    """Why a DoRA is not written for other programs; `merges` where the base has a format of a whole model."""
    target = "checkpoint" if merges else "lora"
    others = "--to checkpoint is for every program, " if merges else ""
    return UnsupportedFile(
        f"{record.name} is a DoRA, and the programs that read kohya's format do not agree on what its magnitudes mean: "
        f"each would generate something else. {others}--to lora is for diffusers.",
        hint=f"dreambooth export {record.name} --to {target}",
    )


def _no_product(record: RunRecord, kind: str, *, merges: bool) -> UnsupportedFile:
    readers = "ComfyUI, AUTOMATIC1111 and InvokeAI, --to diffusers and --to checkpoint have it merged"
    return UnsupportedFile(
        f"{record.name} is a {KINDS[kind]}, which diffusers' layout of a LoRA has no place for. "
        f"--to kohya is for {readers if merges else 'ComfyUI'}.",
        hint=f"dreambooth export {record.name} --to kohya",
    )


def _no_magnitudes(record: RunRecord, where: str, *, merges: bool) -> UnsupportedFile:
    return UnsupportedFile(
        f"{record.name} is a DoRA with magnitudes {where}, which PEFT and diffusers do not know"
        + ("." if merges else ", and this base has no format of a whole model to merge it into."),
        hint=f"dreambooth export {record.name} --to checkpoint" if merges else None,
    )


def _no_whole_model(record: RunRecord, profile: Profile, target: str) -> UsageError:
    return UsageError(
        f"On {record.base.name} a run is a LoRA and nothing else; {target} is no format of one.",
        hint=_any_of(_fitting(profile, merges=False)),
    )


def _fitting(profile: Profile, *, merges: bool) -> list[str]:
    """The formats that have a place for a run's adapter, or for the model that it is merged into."""
    has_place = {
        "diffusers": merges,
        "checkpoint": merges,
        "lora": profile.lora.kind == "lora",
        "kohya": not profile.lora.dora,
    }
    return [target for target, fits in has_place.items() if fits]


def _any_of(targets: Sequence[str]) -> str:
    return " or ".join(f"--to {one}" for one in targets)


def _write(export: Export) -> Written:
    """Writes the export and generates with the run's own weights, rounded as the file rounds them."""
    if export.target in ADAPTERS:
        return _write_lora(export)
    if export.target in EMBEDDINGS:
        return _write_embedding(export)
    from dbcli.diffusion.adapters.attach import merge_lora
    from dbcli.diffusion.bases.stored_layers import round_to
    from dbcli.diffusion.word_vectors import fold_words

    model = export.load_run()
    if export.target not in model.family.exports:
        # Of a base that was not on this machine nothing told that before.
        raise _no_whole_model(export.record, export.profile, export.target)
    if export.record.method == "lora":
        for network in model.tunable.values():
            merge_lora(network)
    fold_words(model)
    for network in model.networks.values():
        round_to(network, export.dtype)
    image = check_image(model, export)
    if export.target == "diffusers":
        _write_folder(export, model)
    else:
        _write_checkpoint(export, model, image)
    return Written(image, model)


def _write_folder(export: Export, model: Base) -> None:
    from dbcli.diffusion.formats.diffusers_folder import write_base
    from dbcli.project.files.atomic import commit_folder, temporary_folder

    with temporary_folder(export.path) as folder:
        write_base(folder, model, dtype=export.dtype)
        commit_folder(folder, export.path)


def _write_checkpoint(export: Export, model: Base, image: torch.Tensor) -> None:
    from dbcli.diffusion.formats.checkpoint import write_checkpoint

    metadata = _metadata(export, model, image, addition=None)
    write_checkpoint(export.path, model, dtype=export.dtype, metadata=metadata)


def _write_lora(export: Export) -> Written:
    from dbcli.diffusion.adapters.attach import attach_lora
    from dbcli.diffusion.formats.lora_files import read_lora
    from dbcli.diffusion.formats.lora_writing import for_diffusers, for_kohya, write_diffusers_lora, write_kohya_lora

    model, record, is_kohya = export.load_base(), export.record, export.target == "kohya"
    file = checked_weights(export.layout, record) / LORA_FILE
    learnt, merges = read_lora(file, model), "checkpoint" in model.family.exports
    if learnt.only_merges or learnt.is_mixed:
        where = "along the inputs" if learnt.by_input else f"on a {KINDS[learnt.kind]}"
        where = where if learnt.only_merges else "on some of its layers only"
        raise _no_magnitudes(record, where, merges=merges)
    if is_kohya and learnt.has_dora:
        raise no_dora(record, merges=merges)
    if learnt.products and not is_kohya:
        raise _no_product(record, learnt.kind, merges=merges)
    keeps_alpha = is_kohya and not model.family.alpha_in_weights
    lora = _rounded(for_kohya(learnt) if keeps_alpha else for_diffusers(learnt), export.dtype)
    attach_lora(model.tunable, lora)
    image = check_image(model, export)
    metadata = _metadata(export, model, image, addition="lora")
    if is_kohya:
        metadata |= kohya_of(record, export.profile, model, lora)
        write_kohya_lora(export.path, lora, model.family, configs=model.configs, dtype=export.dtype, metadata=metadata)
    else:
        write_diffusers_lora(
            export.path,
            lora,
            model,
            dtype=export.dtype,
            metadata=metadata,
        )
    return Written(image, model, lora)


def _write_embedding(export: Export) -> Written:
    """One file a word, named by the word, which is how AUTOMATIC1111 and ComfyUI know it; diffusers reads the key."""
    from dbcli.diffusion.word_vectors import add_words

    subjects = export.record.subjects
    words = read_words(checked_weights(export.layout, export.record), subjects)
    words = [one.each(lambda vectors: vectors.to(export.dtype).float()) for one in words]
    model = export.load_base()
    add_words(model, words)
    image = check_image(model, export)
    export_words(
        export.path,
        subjects,
        words,
        model.tokenizer,
        dtype=export.dtype,
        metadata=_metadata(export, model, image, addition=INVERSION),
        for_invokeai=export.target == "embedding-invokeai",
    )
    return Written(image, model)


def _metadata(export: Export, model: Base, image: torch.Tensor, *, addition: Addition | None) -> dict[str, str]:
    return modelspec_of(
        export.record, export.profile, model, image, target=export.target, addition=addition, origin=export.origin
    )


def _rounded(lora: LoraWeights, dtype: torch.dtype) -> LoraWeights:
    def layers(part: dict[str, Layer]) -> dict[str, Layer]:
        return {name: layer.each(lambda tensor: tensor.to(dtype).float()) for name, layer in part.items()}

    return lora.changed(layers)
