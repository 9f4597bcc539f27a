"""Taking a run to other tools: written in their format, loaded back, and one picture compared before it counts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import DreamboothError, Refused, UsageError
from dbcli.project import runs as store
from dbcli.project.identifiers import Words
from dbcli.project.layout import Layout
from dbcli.project.profiles import Profile
from dbcli.project.runs import RunRecord
from dbcli.project.token_claims import SubjectWord
from dbcli.workflows.generate import chosen_run, profile_of
from dbcli.workflows.pictures import draw_size, words_of
from dbcli.workflows.progress import Progress
from dbcli.workflows.tokens import clashes_among
from dbcli.workflows.tuned import LORA_FILE, checked_weights, load_model

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dbcli.diffusion.bases import Base
    from dbcli.diffusion.formats.lora import LoraWeights

TARGETS = ("diffusers", "checkpoint", "lora", "kohya")
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
    if target in ("lora", "kohya") and record.method != "lora":
        raise UsageError(
            f"{record.name} is a {record.method} run and has no LoRA in it.", hint="--to diffusers or --to checkpoint"
        )
    collisions = _collisions(record, allow=allow_collision)
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
    return Exported(record.name, target, path, difference)


def _collisions(record: RunRecord, *, allow: bool) -> tuple[str, ...]:
    """Whoever loads the file cannot know that its words do not keep its subjects apart."""
    words = [SubjectWord(one.name, one.identifier or "", one.class_noun) for one in record.subjects]
    return clashes_among(words, f"The subjects of {record.name} do not stay apart", allow=allow)


def _default_name(record: RunRecord, target: str) -> str:
    return f"{record.name}-{target}" + ("" if target == "diffusers" else ".safetensors")


def _write_and_draw(layout: Layout, order: _Order, progress: Progress, *, offline: bool) -> torch.Tensor:
    """Writes the export and draws with the run's own weights, rounded as the file rounds them."""
    if order.target in ("lora", "kohya"):
        return _write_lora(layout, order, progress, offline=offline)
    from dbcli.diffusion.adapters import merge_lora

    model = load_model(layout, order.record, progress, offline=offline, device="cpu")
    if order.record.method == "lora":
        merge_lora(model.unet)
        merge_lora(model.text_encoder)
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
        metadata=_modelspec(order, model, picture, lora=False),
    )


def _write_lora(layout: Layout, order: _Order, progress: Progress, *, offline: bool) -> torch.Tensor:
    from dbcli.diffusion.adapters import attach_lora
    from dbcli.diffusion.formats.lora_files import read_lora, write_diffusers_lora, write_kohya_lora

    model = load_model(layout, None, progress, offline=offline, device="cpu")
    file = checked_weights(layout, order.record) / LORA_FILE
    lora = _rounded(read_lora(file, unet=model.unet, text_encoder=model.text_encoder), order.dtype)
    plain_unet, plain_text = model.unet, model.text_encoder
    drawn = load_model(layout, None, progress, offline=offline, device="cpu")
    attach_lora(drawn.unet, drawn.text_encoder, lora)
    picture = _draw(drawn, order)
    metadata = _modelspec(order, model, picture, lora=True)
    if order.target == "kohya":
        write_kohya_lora(order.path, lora, dtype=order.dtype, metadata=metadata | _kohya(order, model))
    else:
        write_diffusers_lora(
            order.path, lora, unet=plain_unet, text_encoder=plain_text, dtype=order.dtype, metadata=metadata
        )
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

    if order.target in ("diffusers", "checkpoint"):
        return load_base(str(order.path.resolve()), offline=True)
    from dbcli.diffusion.adapters import attach_lora
    from dbcli.diffusion.formats.lora_files import read_lora

    model = load_model(layout, None, progress, offline=offline, device="cpu")
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


def _trigger(order: _Order) -> str:
    return ", ".join(words.text for words in words_of(order.record).values())


def _version(model: Base) -> Any:
    return "sd-v2" if model.unet.config.use_linear_projection else "sd-v1"  # type: ignore[union-attr,attr-defined]


def _modelspec(order: _Order, model: Base, picture: torch.Tensor, *, lora: bool) -> dict[str, str]:
    from dbcli.diffusion.formats.metadata import modelspec_metadata
    from dbcli.diffusion.images import to_image

    thumbnail: Image.Image = to_image(picture)
    return modelspec_metadata(
        version=_version(model),
        prediction_type=model.prediction_type,
        title=order.record.name,
        resolution_px=order.profile.images.resolution or model.resolution,
        date=_finished(order.record),
        lora=lora,
        diffusers_names=order.target == "lora",
        trigger_phrase=_trigger(order),
        description=f"DreamBooth on {order.record.base.name}: {_trigger(order)}",
        tags=["dreambooth"],
        thumbnail=thumbnail,
    )


def _kohya(order: _Order, model: Base) -> dict[str, str]:
    from dbcli.diffusion.formats.metadata import kohya_metadata

    train, record = order.profile.train, order.record
    return kohya_metadata(
        version=_version(model),
        prediction_type=model.prediction_type,
        rank=order.profile.lora.rank,
        alpha=order.profile.lora.alpha,
        output_name=record.name,
        base_name=record.base.name,
        trigger_phrase=_trigger(order),
        photo_count=sum(len(subject.photo_hashes) for subject in record.subjects),
        class_image_count=sum(one["images"] for one in record.prior.get("sets", [])),
        steps=record.step,
        batch_size=train.batch_size * train.accumulation,
        resolution_px=order.profile.images.resolution or model.resolution,
        learning_rate=train.learning_rate,
        text_learning_rate=(train.text_encoder_learning_rate or train.learning_rate) if train.text_encoder else None,
        optimizer=train.optimizer,
        schedule=train.schedule,
        seed=train.seed,
        precision=train.precision,
        prior_weight=order.profile.prior.weight,
        min_snr_gamma=train.min_snr_gamma,
        started=datetime.fromisoformat(record.created),
        finished=_finished(record),
    )


def _finished(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record.finished or record.created)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
