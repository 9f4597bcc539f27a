"""What a model file says of itself: ModelSpec (Stability AI's keys) and kohya's `ss_*` keys.

Model browsers show the first; AUTOMATIC1111 reads the second for a LoRA's trigger words.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_PX = 256


Addition = Literal["lora", "textual-inversion"]


def architecture(*, version: Literal["sd-v1", "sd-v2"], prediction_type: str, addition: Addition | None) -> str:
    """ModelSpec's name: `stable-diffusion-v1`, `stable-diffusion-v2-768-v`, and `/lora` for what is added to one."""
    names = {
        ("sd-v1", "epsilon"): "stable-diffusion-v1",
        ("sd-v1", "v_prediction"): "stable-diffusion-v1",
        ("sd-v2", "epsilon"): "stable-diffusion-v2-512",
        ("sd-v2", "v_prediction"): "stable-diffusion-v2-768-v",
    }
    return names[version, prediction_type] + (f"/{addition}" if addition else "")


def modelspec_metadata(
    *,
    version: Literal["sd-v1", "sd-v2"],
    prediction_type: str,
    title: str,
    resolution_px: int,
    date: datetime,
    addition: Addition | None,
    trigger_phrase: str | None = None,
    description: str | None = None,
    author: str | None = None,
    licence: str | None = None,
    tags: Sequence[str] = (),
    thumbnail: Image.Image | None = None,
) -> dict[str, str]:
    """The ModelSpec 1.0 table of a file; `hash_sha256` is added when the file is written.

    The thumbnail is cut to a square of 256 px and embedded as JPEG.
    """
    original = "https://github.com/CompVis/stable-diffusion"
    table = {
        "sai_model_spec": "1.0.0",
        "architecture": architecture(version=version, prediction_type=prediction_type, addition=addition),
        "implementation": "diffusers" if addition else original,
        "title": title,
        "resolution": f"{resolution_px}x{resolution_px}",
        "date": date.isoformat(timespec="seconds"),
        "prediction_type": "v" if prediction_type == "v_prediction" else "epsilon",
        "trigger_phrase": trigger_phrase,
        "usage_hint": f"Trigger: {trigger_phrase}" if trigger_phrase else None,
        "description": description,
        "author": author,
        "license": licence,
        "tags": ", ".join(tags) or None,
        "thumbnail": None if thumbnail is None else _data_url(thumbnail),
    }
    return {f"modelspec.{key}": value for key, value in table.items() if value}


def _data_url(image: Image.Image) -> str:
    from PIL import ImageOps

    square = ImageOps.fit(image.convert("RGB"), (THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    square.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def kohya_metadata(
    *,
    version: Literal["sd-v1", "sd-v2"],
    prediction_type: str,
    rank: int,
    alpha: float,
    output_name: str,
    base_name: str,
    photo_counts: Mapping[str, int],
    class_image_count: int,
    steps: int,
    batch_size: int,
    resolution_px: int,
    learning_rate: float,
    text_learning_rate: float | None,
    optimizer: str,
    schedule: str,
    seed: int,
    precision: str,
    prior_weight: float,
    min_snr_gamma: float | None = None,
    started: datetime | None = None,
    finished: datetime | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """kohya's table for a LoRA; all values are text, `None` is the word None, as its own files have it.

    `photo_counts` maps each trigger phrase to how many photos taught it: a folder each in kohya's eyes.
    """
    folders = {f"1_{phrase}": (phrase, count) for phrase, count in photo_counts.items()}
    table: dict[str, object] = {
        "network_module": "networks.lora",
        "network_dim": rank,
        "network_alpha": alpha,
        "base_model_version": "sd_v1" if version == "sd-v1" else _v2_name(prediction_type),
        "v2": version == "sd-v2",
        "output_name": output_name,
        "sd_model_name": base_name,
        "num_train_images": sum(photo_counts.values()),
        "num_reg_images": class_image_count,
        "max_train_steps": steps,
        "steps": steps,
        "total_batch_size": batch_size,
        "resolution": f"({resolution_px}, {resolution_px})",
        "learning_rate": learning_rate,
        "unet_lr": learning_rate,
        "text_encoder_lr": text_learning_rate,
        "optimizer": optimizer,
        "lr_scheduler": schedule,
        "seed": seed,
        "mixed_precision": precision,
        "prior_loss_weight": prior_weight,
        "min_snr_gamma": min_snr_gamma,
        "clip_skip": None,
        "tag_frequency": json.dumps({folder: {phrase: count} for folder, (phrase, count) in folders.items()}),
        "dataset_dirs": json.dumps(
            {folder: {"n_repeats": 1, "img_count": count} for folder, (_, count) in folders.items()}
        ),
        "training_started_at": None if started is None else started.timestamp(),
        "training_finished_at": None if finished is None else finished.timestamp(),
    }
    return {f"ss_{key}": str(value) for key, value in table.items()} | dict(extra or {})


def _v2_name(prediction_type: str) -> str:
    return "sd_v2_v" if prediction_type == "v_prediction" else "sd_v2"
