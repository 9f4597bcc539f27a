"""What an exported file says of the run it came from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from dbcli.project.profile_settings import Profile
from dbcli.project.runs import RunRecord
from dbcli.workflows.inversion import INVERSION
from dbcli.workflows.pictures import words_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dbcli.diffusion.bases import Base
    from dbcli.diffusion.formats.metadata import Addition


def _trigger(record: RunRecord) -> str:
    return ", ".join(words.text for words in words_of(record).values())


def _version(model: Base) -> Any:
    return "sd-v2" if model.unet.config.use_linear_projection else "sd-v1"  # type: ignore[union-attr,attr-defined]


def modelspec_of(
    record: RunRecord, profile: Profile, model: Base, picture: torch.Tensor, *, addition: Addition | None
) -> dict[str, str]:
    """The ModelSpec table; `picture` `[3, H, W]` in [-1, 1] becomes the thumbnail."""
    from dbcli.diffusion.formats.metadata import modelspec_metadata
    from dbcli.diffusion.images import to_image

    thumbnail: Image.Image = to_image(picture)
    method = "Textual inversion" if addition == INVERSION else "DreamBooth"
    return modelspec_metadata(
        version=_version(model),
        prediction_type=model.prediction_type,
        title=record.name,
        resolution_px=profile.images.resolution or model.resolution,
        date=_finished(record),
        addition=addition,
        trigger_phrase=_trigger(record),
        description=f"{method} on {record.base.name}: {_trigger(record)}",
        tags=[method.lower().replace(" ", "-")],
        thumbnail=thumbnail,
    )


def kohya_of(record: RunRecord, profile: Profile, model: Base) -> dict[str, str]:
    """kohya's table, for a LoRA run."""
    from dbcli.diffusion.formats.metadata import kohya_metadata

    train = profile.train
    return kohya_metadata(
        version=_version(model),
        prediction_type=model.prediction_type,
        rank=profile.lora.rank,
        alpha=profile.lora.alpha,
        output_name=record.name,
        base_name=record.base.name,
        trigger_phrase=_trigger(record),
        photo_count=sum(len(subject.photo_hashes) for subject in record.subjects),
        class_image_count=sum(one["images"] for one in record.prior.get("sets", [])),
        steps=record.result_step,
        batch_size=train.batch_size * train.accumulation,
        resolution_px=profile.images.resolution or model.resolution,
        learning_rate=train.learning_rate,
        text_learning_rate=(train.text_encoder_learning_rate or train.learning_rate) if train.text_encoder else None,
        optimizer=train.optimizer,
        schedule=train.schedule,
        seed=train.seed,
        precision=train.precision,
        prior_weight=profile.prior.weight,
        min_snr_gamma=train.min_snr_gamma,
        started=datetime.fromisoformat(record.created),
        finished=_finished(record),
    )


def _finished(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record.finished or record.created)
