"""What an exported file says of the run it came from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dbcli.project.files.names import without_control_characters
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile, TrainSettings
from dbcli.workflows.models.textual_inversion import INVERSION
from dbcli.workflows.sharing.recipients import subjects_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import LoraWeights
    from dbcli.diffusion.formats.metadata import Addition

# Every subject with its name and words, [{"name": …, "word": …, "class": …}, …]; other programs know a trigger phrase.
SUBJECTS_KEY = "dreambooth.subjects"
# Start of a base's address on the hub -> the licence its models pass on.
LICENCES = {
    "CompVis/stable-diffusion": "creativeml-openrail-m",
    "stable-diffusion-v1-5/": "creativeml-openrail-m",
    "runwayml/stable-diffusion": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-2": "openrail++",
    "stabilityai/stable-diffusion-xl": "openrail++",
}


@dataclass(frozen=True)
class Origin:
    """Who made a file and under which terms it goes out, as far as somebody said; see `settled_origin`."""

    author: str | None = None
    licence: str | None = None


def settled_origin(record: RunRecord, origin: Origin) -> Origin:
    """What was said at export, else what the imported file said, else the licence that the base passes on."""
    imported = record.imported_from.get("metadata", {})
    author = origin.author or imported.get("modelspec.author")
    licence = origin.licence or imported.get("modelspec.license") or licence_of(record.base.source)
    return Origin(*(without_control_characters(text) if text else None for text in (author, licence)))


def licence_of(source: str) -> str | None:
    """The licence of a base on the hub, where it is known."""
    return next((found for start, found in LICENCES.items() if source.startswith(start)), None)


def _triggers(record: RunRecord) -> list[str]:
    return [f"{one.word} {one.class_noun}" for one in subjects_of(record)]


def modelspec_of(
    record: RunRecord,
    profile: Profile,
    model: Base,
    image: torch.Tensor,
    *,
    target: str,
    addition: Addition | None,
    origin: Origin,
) -> dict[str, str]:
    """The ModelSpec table and the subjects, for a format; `image` `[3, H, W]` in [-1, 1] becomes the thumbnail."""
    from dbcli.diffusion.formats.metadata import modelspec_metadata
    from dbcli.diffusion.images import to_image

    thumbnail: Image.Image = to_image(image)
    method = "Textual inversion" if addition == INVERSION else "DreamBooth"
    trigger = ", ".join(_triggers(record))
    origin = settled_origin(record, origin)
    table: dict[str, str] = modelspec_metadata(
        architecture=model.family.architecture(model.configs, model.prediction_type),
        implementation=model.family.implementation_of(target),
        prediction_type=model.prediction_type,
        title=record.name,
        resolution_px=profile.images.resolution or model.resolution,
        date=_finished(record),
        addition=addition,
        trigger_phrase=trigger,
        description=f"{method} on {record.base.name}: {trigger}",
        author=origin.author,
        licence=origin.licence,
        tags=[method.lower().replace(" ", "-")],
        thumbnail=thumbnail,
    )
    subjects = [{"name": one.name, "word": one.word, "class": one.class_noun} for one in subjects_of(record)]
    return table | ({SUBJECTS_KEY: json.dumps(subjects, ensure_ascii=False)} if subjects else {})


def kohya_of(record: RunRecord, profile: Profile, model: Base, lora: LoraWeights) -> dict[str, str]:
    """kohya's table, for a LoRA run; rank and alpha are those of most layers as they are written."""
    from dbcli.diffusion.formats.metadata import kohya_folders, kohya_metadata

    photo_counts, (rank, alpha) = _photo_counts(record), usual_rank_and_alpha(lora)
    table = {
        **_network_of(record, lora, profile),
        "network_dim": rank,
        "network_alpha": alpha,
        **model.family.kohya_base(model.configs, model.prediction_type),
        "output_name": record.name,
        "sd_model_name": record.base.name,
        "num_train_images": sum(photo_counts.values()),
        "num_reg_images": sum(one["images"] for one in record.prior.get("sets", [])),
        **_recipe(record, profile, profile.images.resolution or model.resolution),
        "clip_skip": None,
        **kohya_folders(photo_counts),
        "training_started_at": datetime.fromisoformat(record.created).timestamp(),
        "training_finished_at": _finished(record).timestamp(),
    }
    texts: dict[str, str] = kohya_metadata(table)
    return texts


def _recipe(record: RunRecord, profile: Profile, size: int) -> dict[str, object]:
    """How a run learnt, at `size` pixels. Nobody here knows it of an imported one, whose profile is the project's."""
    if record.imported_from:
        return {}
    train, images = profile.train, profile.images
    return {
        "max_train_steps": record.result_step,
        "steps": record.result_step,
        "total_batch_size": train.batch_size * train.accumulation,
        "resolution": f"({size}, {size})",
        **({"enable_bucket": True} if images.buckets == "auto" else {}),
        "learning_rate": train.learning_rate,
        "unet_lr": train.learning_rate,
        "text_encoder_lr": _text_encoder_rate(train),
        "optimizer": train.optimizer,
        "lr_scheduler": train.schedule,
        "seed": train.seed,
        "mixed_precision": record.precision or train.precision,
        "prior_loss_weight": profile.prior.weight,
        "min_snr_gamma": train.min_snr_gamma,
        **_loss(train),
        **({"caption_dropout_rate": images.empty_share} if images.empty_share else {}),
    }


def _text_encoder_rate(train: TrainSettings) -> float | None:
    """The rate by which the text encoder learnt, 0 included; None where it was frozen."""
    if not train.text_encoder:
        return None
    return train.learning_rate if train.text_encoder_learning_rate is None else train.text_encoder_learning_rate


def _loss(train: TrainSettings) -> dict[str, object]:
    """What of the loss is not as usual, under kohya's names."""
    found: dict[str, object] = {}
    if train.debiased_estimation:
        found["debiased_estimation"] = True
    if train.loss == "pseudo-huber":
        found |= {"loss_type": "huber", "huber_schedule": train.huber_schedule, "huber_c": train.huber_c}
    if train.offset_noise:
        found["noise_offset"] = train.offset_noise
    if train.multires_noise:
        found["multires_noise_discount"] = train.multires_noise
    return found


def _network_of(record: RunRecord, lora: LoraWeights, profile: Profile) -> dict[str, object]:
    """The trainer that kohya's tools would have made such a file with, as far as it is known."""
    if not lora.products:
        return {"network_module": "networks.lora"}
    arguments: dict[str, object] = {"algo": lora.kind}
    if lora.kind == "lokr" and not record.imported_from:
        arguments["factor"] = profile.lora.factor
    return {"network_module": "lycoris.kohya", "network_args": json.dumps(arguments)}


def usual_rank_and_alpha(lora: LoraWeights) -> tuple[int, float]:
    """Those of most layers."""
    ranks, alphas = Counter(layer.rank for layer in lora.layers), Counter(layer.alpha for layer in lora.layers)
    return ranks.most_common(1)[0][0], alphas.most_common(1)[0][0]


def _photo_counts(record: RunRecord) -> dict[str, int]:
    return {
        f"{one.identifier} {one.class_noun}": len(one.photo_hashes)
        for one in record.subjects
        if one.identifier is not None
    }


def _finished(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record.finished or record.created)
