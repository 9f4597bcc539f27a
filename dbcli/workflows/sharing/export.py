"""Taking a run to other tools: written in their format, loaded back by their loader, and one image compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import Refused, UnsupportedFile, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.token_claims import SubjectWord
from dbcli.project.runs.run_store import RunRecord, append_event
from dbcli.project.runs.weights import LORA_FILE, checked_weights
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.models.textual_inversion import INVERSION, export_words, read_words, spellings
from dbcli.workflows.models.weights import bundled_words, load_model
from dbcli.workflows.progress import Progress
from dbcli.workflows.runs.choose import chosen_run
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.setup.output_folder import check_writable
from dbcli.workflows.sharing.export_metadata import Origin, kohya_of, modelspec_of
from dbcli.workflows.sharing.export_proof import check_image, discard, prove
from dbcli.workflows.sharing.recipients import ADAPTERS, EMBEDDINGS, Recipient, recipient_of
from dbcli.workflows.subjects.identifiers import clashes_among

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights

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
    """A run to be written for `target`, into `out` or exports/; `precision` is fp16 or fp32."""

    run: str
    target: str = "checkpoint"
    precision: str = "fp16"
    out: Path | None = None
    origin: Origin = field(default_factory=Origin)
    allow_collision: bool = False


@dataclass(frozen=True)
class ExportOrder:
    """What is to be written: a run's result in one format and precision, at one place."""

    record: RunRecord
    profile: Profile
    target: str
    dtype: torch.dtype
    path: Path
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class Written:
    """What a file has to give back: the image of what it holds, and for an adapter the layers themselves."""

    image: torch.Tensor
    model: Base
    lora: LoraWeights | None = None


def export_run(layout: Layout, request: ExportRequest, progress: Progress, *, offline: bool) -> Exported:
    """Writes a run in another tool's format and proves it by loading it back with that tool's loader.

    Raises UsageError for a format the run cannot take, UnsupportedFile for DoRA in kohya's format, Refused if `out`
    exists, Collision where two of the run's subjects share a token and nobody allowed it, and DreamboothError (exit 1),
    with the figure and without the file, if the loaded export does not give what the run gives.
    """
    order, target = _order(layout, request), request.target
    collisions = _collisions(layout, order.record, allow=request.allow_collision)
    if order.path.exists():
        raise Refused(f"{order.path} is there already.", hint="--out PATH names another place")
    order.path.parent.mkdir(parents=True, exist_ok=True)
    with progress.stage(f"Exporting {order.record.name} to {target}", 3) as stage:
        written = _write(layout, order, progress, offline=offline)
        stage.advance(2)
        try:
            proof = prove(layout, order, written, progress, offline=offline)
        except BaseException:
            discard(order.path)
            raise
        stage.advance()
    if collisions:
        append_event(
            layout,
            order.record.name,
            {"event": "exported", "path": str(order.path), "allowed_collisions": list(collisions)},
        )
    recipient = recipient_of(order.record, target, written.model, written.lora, spellings(layout, order.record))
    recipient = replace(recipient, notes=[*recipient.notes, *_words_left_out(layout, order)])
    for line in recipient.notes:
        progress.note(line)
    return Exported(order.record.name, target, order.path, proof.difference, proof.loader, recipient)


def _order(layout: Layout, request: ExportRequest) -> ExportOrder:
    """What can be known to be wrong before anything is loaded is said here."""
    target, precision, out, origin = request.target, request.precision, request.out, request.origin
    if target not in TARGETS or precision not in PRECISIONS:
        targets = ", ".join((*TARGETS, "hub"))
        raise UsageError(f"--to is one of {targets}; --precision one of {', '.join(PRECISIONS)}.")
    if target == "diffusers" and origin != Origin():
        raise UsageError(
            "A diffusers folder has no place for --author and --licence.",
            hint="--to checkpoint, or --to hub, whose card names the licence",
        )
    record = chosen_run(layout, request.run)
    if record is None:
        raise UsageError("The bare base is not a run.", hint="dreambooth runs list")
    possible, reason = TARGETS_OF[record.method]
    if target not in possible:
        raise UsageError(
            f"{record.name} {reason.format(target=target)}.", hint=" or ".join(f"--to {one}" for one in possible)
        )
    profile = profile_of(layout, record)
    if target == "kohya" and profile.lora.dora:
        raise _no_dora(record)
    path = out if out is not None else layout.root / "exports" / _default_name(record, target)
    check_writable(path.parent)
    import torch

    return ExportOrder(record, profile, target, torch.float16 if precision == "fp16" else torch.float32, path, origin)


def _words_left_out(layout: Layout, order: ExportOrder) -> list[str]:
    """A line for every embedding that came with an imported LoRA, where a file has no place for words."""
    if order.record.method != "lora" or order.target == "diffusers":
        return []
    words = [printable(one.word) for one in bundled_words(layout.weights_dir(order.record.name))]
    return [f"The embedding '{word}' that came with it is not in this file (--to diffusers has it)." for word in words]


def _no_dora(record: RunRecord) -> UnsupportedFile:
    return UnsupportedFile(
        f"{record.name} is a DoRA, and the programs that read kohya's format do not agree on what its magnitudes mean: "
        "each would generate something else. --to checkpoint is for every program, --to lora for diffusers.",
        hint=f"dreambooth export {record.name} --to checkpoint",
    )


def _collisions(layout: Layout, record: RunRecord, *, allow: bool) -> tuple[str, ...]:
    """Whoever loads the file cannot know that its words do not keep its subjects apart."""
    words = [SubjectWord(one.name, one.identifier or "", one.class_noun) for one in record.subjects]
    return clashes_among(layout, words, f"The subjects of {record.name} do not stay apart", allow=allow)


def _default_name(record: RunRecord, target: str) -> str:
    return f"{record.name}-{target}" + ("" if target in FOLDERS else ".safetensors")


def _write(layout: Layout, order: ExportOrder, progress: Progress, *, offline: bool) -> Written:
    """Writes the export and generates with the run's own weights, rounded as the file rounds them."""
    if order.target in ADAPTERS:
        return _write_lora(layout, order, progress, offline=offline)
    if order.target in EMBEDDINGS:
        return _write_embedding(layout, order, progress, offline=offline)
    from dbcli.diffusion.adapters.attach import merge_lora
    from dbcli.diffusion.word_vectors import fold_words

    model = load_model(
        layout, order.record, progress, offline=offline, device="cpu", bundled=order.target == "diffusers"
    )
    if order.record.method == "lora":
        merge_lora(model.unet)
        merge_lora(model.text_encoder)
    fold_words(model)
    for network in (model.unet, model.vae, model.text_encoder):
        for parameter in network.parameters():
            parameter.data = parameter.data.to(order.dtype).float()
    image = check_image(model, order)
    if order.target == "diffusers":
        _write_folder(order, model)
    else:
        _write_checkpoint(order, model, image)
    return Written(image, model)


def _write_folder(order: ExportOrder, model: Base) -> None:
    from dbcli.diffusion.formats.diffusers_folder import write_base
    from dbcli.project.files.atomic import commit_folder, temporary_folder

    with temporary_folder(order.path) as folder:
        write_base(folder, model, dtype=order.dtype)
        commit_folder(folder, order.path)


def _write_checkpoint(order: ExportOrder, model: Base, image: torch.Tensor) -> None:
    from dbcli.diffusion.formats.checkpoint import write_checkpoint

    write_checkpoint(
        order.path,
        unet=model.unet,
        vae=model.vae,
        text_encoder=model.text_encoder,
        scheduler_config=model.scheduler_config,
        max_tokens=model.max_tokens,
        pad_token=str(model.tokenizer.pad_token),
        dtype=order.dtype,
        metadata=modelspec_of(order.record, order.profile, model, image, addition=None, origin=order.origin),
    )


def _write_lora(layout: Layout, order: ExportOrder, progress: Progress, *, offline: bool) -> Written:
    from dbcli.diffusion.adapters.attach import attach_lora
    from dbcli.diffusion.formats.lora_files import read_lora
    from dbcli.diffusion.formats.lora_portable import for_diffusers, for_kohya
    from dbcli.diffusion.formats.lora_writing import write_diffusers_lora, write_kohya_lora

    model = load_model(layout, None, progress, offline=offline, device="cpu")
    file = checked_weights(layout, order.record) / LORA_FILE
    learnt = read_lora(file, unet=model.unet, text_encoder=model.text_encoder)
    if order.target == "kohya" and learnt.has_dora:
        raise _no_dora(order.record)
    if learnt.by_input:
        raise UnsupportedFile(
            f"{order.record.name} is a DoRA with lengths along the inputs, which PEFT and diffusers do not know.",
            hint=f"dreambooth export {order.record.name} --to checkpoint",
        )
    portable = for_kohya(learnt) if order.target == "kohya" else for_diffusers(learnt)
    lora = _rounded(portable, order.dtype)
    attach_lora(model.unet, model.text_encoder, lora)
    image = check_image(model, order)
    metadata = modelspec_of(order.record, order.profile, model, image, addition="lora", origin=order.origin)
    networks = {"unet": model.unet, "text_encoder": model.text_encoder}
    if order.target == "kohya":
        metadata |= kohya_of(order.record, order.profile, model, lora)
        write_kohya_lora(order.path, lora, dtype=order.dtype, metadata=metadata)
    else:
        write_diffusers_lora(order.path, lora, **networks, dtype=order.dtype, metadata=metadata)
    return Written(image, model, lora)


def _write_embedding(layout: Layout, order: ExportOrder, progress: Progress, *, offline: bool) -> Written:
    """One file a word, named by the word, which is how AUTOMATIC1111 and ComfyUI know it; diffusers reads the key."""
    from dbcli.diffusion.word_vectors import add_words

    words = read_words(checked_weights(layout, order.record), order.record.subjects)
    words = [replace(one, vectors=one.vectors.to(order.dtype).float()) for one in words]
    model = load_model(layout, None, progress, offline=offline, device="cpu")
    add_words(model, words)
    image = check_image(model, order)
    metadata = modelspec_of(order.record, order.profile, model, image, addition=INVERSION, origin=order.origin)
    how = {"dtype": order.dtype, "metadata": metadata, "for_invokeai": order.target == "embedding-invokeai"}
    export_words(order.path, order.record.subjects, words, model.tokenizer, **how)
    return Written(image, model)


def _rounded(lora: LoraWeights, dtype: torch.dtype) -> LoraWeights:
    def layers(part: dict[str, LoraLayer]) -> dict[str, LoraLayer]:
        return {
            name: replace(
                layer,
                down=layer.down.to(dtype).float(),
                up=layer.up.to(dtype).float(),
                magnitude=None if layer.magnitude is None else layer.magnitude.to(dtype).float(),
            )
            for name, layer in part.items()
        }

    return replace(lora, unet=layers(lora.unet), text_encoder=layers(lora.text_encoder))
