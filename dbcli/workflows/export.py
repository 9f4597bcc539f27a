"""Taking a run to other tools: written in their format, loaded back, and one picture compared before it counts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import DreamboothError, Refused, UsageError
from dbcli.project import runs as store
from dbcli.project.identifiers import Words
from dbcli.project.layout import Layout
from dbcli.project.profile_settings import Profile
from dbcli.project.runs import RunRecord
from dbcli.project.token_claims import SubjectWord
from dbcli.project.weights import checked_weights
from dbcli.workflows.export_metadata import kohya_of, modelspec_of
from dbcli.workflows.generate import chosen_run, profile_of
from dbcli.workflows.inversion import INVERSION, attach_words, by_word, export_words, read_words, spellings
from dbcli.workflows.pictures import draw_size, words_of
from dbcli.workflows.progress import Progress
from dbcli.workflows.tokens import clashes_among
from dbcli.workflows.tuned import LORA_FILE, load_model

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases import Base
    from dbcli.diffusion.formats.lora import LoraWeights

TARGETS = ("diffusers", "checkpoint", "lora", "kohya", "embedding")
# What each method's result can be written as, and why it cannot be written as another.
TARGETS_OF = {
    "full": (("diffusers", "checkpoint"), "is a full run and has no {target} in it"),
    "lora": (("diffusers", "checkpoint", "lora", "kohya"), "is a lora run and has no {target} in it"),
    INVERSION: (
        ("embedding", "diffusers"),
        "learnt a word and nothing else, and a {target} file has no place for words",
    ),
}
# Several files each: an embedding's is named by its word, and there is one a subject.
FOLDERS = ("diffusers", "embedding")
PRECISIONS = ("fp16", "fp32")
# A few steps with guidance send every weight into the picture; the noise is the same, so nothing else may differ.
CHECK_STEPS = 4
CHECK_GUIDANCE = 3.0
# Half a level of 256 in [-1, 1]: below it no pixel of an 8-bit picture can differ by more than one level.
TOLERANCE = 1 / 255


@dataclass(frozen=True)
class Exported:
    """One export: its path, its format, and the largest difference of a pixel, in [-1, 1], after loading it back."""

    run: str
    target: str
    path: Path
    difference: float


@dataclass(frozen=True)
class _Order:
    record: RunRecord
    profile: Profile
    target: str
    dtype: torch.dtype
    path: Path


def export_run(
    layout: Layout,
    run: str,
    *,
    target: str,
    precision: str,
    out: Path | None,
    progress: Progress,
    offline: bool,
    allow_collision: bool = False,
) -> Exported:
    """Writes a run in another tool's format and proves it by loading it back.

    Raises UsageError for a format the run cannot take, Refused if `out` exists, Collision where two of the run's
    subjects share a token and nobody allowed it, and DreamboothError (exit 1), with
    the figure and without the file, if the loaded export draws another picture.
    """
    import torch

    if target not in TARGETS or precision not in PRECISIONS:
        targets = ", ".join((*TARGETS, "hub"))
        raise UsageError(f"--to is one of {targets}; --precision one of {', '.join(PRECISIONS)}.")
    record = chosen_run(layout, run)
    if record is None:
        raise UsageError("The bare base is not a run.", hint="dreambooth runs list")
    possible, reason = TARGETS_OF[record.method]
    if target not in possible:
        raise UsageError(
            f"{record.name} {reason.format(target=target)}.", hint=" or ".join(f"--to {one}" for one in possible)
        )
    collisions = _collisions(layout, record, allow=allow_collision)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    path = out if out is not None else layout.root / "exports" / _default_name(record, target)
    if path.exists():
        raise Refused(f"{path} is there already.", hint="--out PATH names another place")
    order = _Order(record, profile_of(layout, record), target, dtype, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress.stage(f"Exporting {record.name} to {target}", 3) as stage:
        expected = _write_and_draw(layout, order, progress, offline=offline)
        stage.advance(2)
        found = _draw(_loaded_back(layout, order, progress, offline=offline), order)
        stage.advance()
    difference = float((expected - found).abs().max())
    if difference > TOLERANCE:
        _discard(path)
        raise DreamboothError(
            f"The export does not draw what the run draws: a pixel differs by {difference:.3g} of 2. It was removed.",
            hint="please report this with dreambooth runs show --json",
        )
    if collisions:
        store.append_event(
            layout, record.name, {"event": "exported", "path": str(path), "allowed_collisions": list(collisions)}
        )
    for word, spelling in spellings(layout, record).items():
        if spelling != word:
            progress.note(f"'{word}' is a piece of longer words: diffusers has to be told {spelling} instead.")
    return Exported(record.name, target, path, difference)


def _collisions(layout: Layout, record: RunRecord, *, allow: bool) -> tuple[str, ...]:
    """Whoever loads the file cannot know that its words do not keep its subjects apart."""
    words = [SubjectWord(one.name, one.identifier or "", one.class_noun) for one in record.subjects]
    return clashes_among(layout, words, f"The subjects of {record.name} do not stay apart", allow=allow)


def _default_name(record: RunRecord, target: str) -> str:
    return f"{record.name}-{target}" + ("" if target in FOLDERS else ".safetensors")


def _write_and_draw(layout: Layout, order: _Order, progress: Progress, *, offline: bool) -> torch.Tensor:
    """Writes the export and draws with the run's own weights, rounded as the file rounds them."""
    if order.target in ("lora", "kohya"):
        return _write_lora(layout, order, progress, offline=offline)
    if order.target == "embedding":
        return _write_embedding(layout, order, progress, offline=offline)
    from dbcli.diffusion.adapters import merge_lora
    from dbcli.diffusion.word_vectors import fold_words

    model = load_model(layout, order.record, progress, offline=offline, device="cpu")
    if order.record.method == "lora":
        merge_lora(model.unet)
        merge_lora(model.text_encoder)
    fold_words(model)
    for network in (model.unet, model.vae, model.text_encoder):
        for parameter in network.parameters():
            parameter.data = parameter.data.to(order.dtype).float()
    picture = _draw(model, order)
    if order.target == "diffusers":
        _write_folder(order, model)
    else:
        _write_checkpoint(order, model, picture)
    return picture


def _write_folder(order: _Order, model: Base) -> None:
    from dbcli.diffusion.formats.diffusers_folder import write_base
    from dbcli.project.atomic import commit_folder, temporary_folder

    with temporary_folder(order.path) as folder:
        write_base(folder, model, dtype=order.dtype)
        commit_folder(folder, order.path)


def _write_checkpoint(order: _Order, model: Base, picture: torch.Tensor) -> None:
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
        metadata=modelspec_of(order.record, order.profile, model, picture, addition=None),
    )


def _write_lora(layout: Layout, order: _Order, progress: Progress, *, offline: bool) -> torch.Tensor:
    from dbcli.diffusion.adapters import attach_lora
    from dbcli.diffusion.formats.lora_files import read_lora
    from dbcli.diffusion.formats.lora_writing import write_diffusers_lora, write_kohya_lora

    model = load_model(layout, None, progress, offline=offline, device="cpu")
    file = checked_weights(layout, order.record) / LORA_FILE
    lora = _rounded(read_lora(file, unet=model.unet, text_encoder=model.text_encoder), order.dtype)
    plain_unet, plain_text = model.unet, model.text_encoder
    drawn = load_model(layout, None, progress, offline=offline, device="cpu")
    attach_lora(drawn.unet, drawn.text_encoder, lora)
    picture = _draw(drawn, order)
    metadata = modelspec_of(order.record, order.profile, model, picture, addition="lora")
    if order.target == "kohya":
        write_kohya_lora(
            order.path, lora, dtype=order.dtype, metadata=metadata | kohya_of(order.record, order.profile, model)
        )
    else:
        write_diffusers_lora(
            order.path, lora, unet=plain_unet, text_encoder=plain_text, dtype=order.dtype, metadata=metadata
        )
    return picture


def _write_embedding(layout: Layout, order: _Order, progress: Progress, *, offline: bool) -> torch.Tensor:
    """One file a word, named by the word, which is how AUTOMATIC1111 and ComfyUI know it; diffusers reads the key."""
    from dataclasses import replace

    from dbcli.diffusion.word_vectors import add_words

    words = read_words(checked_weights(layout, order.record), order.record.subjects)
    words = [replace(one, vectors=one.vectors.to(order.dtype).float()) for one in words]
    model = load_model(layout, None, progress, offline=offline, device="cpu")
    add_words(model, words)
    picture = _draw(model, order)
    metadata = modelspec_of(order.record, order.profile, model, picture, addition=INVERSION)
    export_words(order.path, order.record.subjects, words, model.tokenizer, dtype=order.dtype, metadata=metadata)
    return picture


def _rounded(lora: LoraWeights, dtype: torch.dtype) -> LoraWeights:
    from dataclasses import replace

    def layers(part: dict[str, Any]) -> dict[str, Any]:
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


def _loaded_back(layout: Layout, order: _Order, progress: Progress, *, offline: bool) -> Base:
    """The export as a stranger would load it."""
    from dbcli.diffusion.bases import load_base
    from dbcli.diffusion.word_vectors import answer_to

    if order.target in ("diffusers", "checkpoint"):
        model = load_base(str(order.path.resolve()), offline=True)
        if order.record.method == INVERSION:
            answer_to(model.tokenizer, [str(subject.identifier) for subject in order.record.subjects])
        return model
    from dbcli.diffusion.adapters import attach_lora
    from dbcli.diffusion.formats.lora_files import read_lora

    model = load_model(layout, None, progress, offline=offline, device="cpu")
    if order.target == "embedding":
        attach_words(order.path, order.record.subjects, model, by_word)
        return model
    attach_lora(model.unet, model.text_encoder, read_lora(order.path, unet=model.unet, text_encoder=model.text_encoder))
    return model


def _draw(model: Base, order: _Order) -> torch.Tensor:
    """One picture of the run's first subject, `[3, H, W]` in about [-1, 1]."""
    from dbcli.diffusion.drawing import DrawSettings, Order, draw

    # An imported LoRA may not say which words it answers to.
    words = next(iter(words_of(order.record).values()), Words("", "photo"))
    size = draw_size(model, None, None, order.profile.images.resolution)
    how = DrawSettings("ddim", CHECK_STEPS, CHECK_GUIDANCE, 0.0, *size)
    return next(picture for _, picture in draw(model, [Order(f"a {words.text}", 0)], how)).clamp(-1, 1)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
