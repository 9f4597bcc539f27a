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


def modelspec_metadata(
    *,
    architecture: str,
    implementation: str,
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

    `architecture` is the base's; what is added to one is `architecture/lora`. `implementation` is whose code the file
    is for. The thumbnail is cut to a square of 256 px and embedded as JPEG.
    """
    table = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{architecture}/{addition}" if addition else architecture,
        "implementation": implementation,
        "title": title,
        "resolution": f"{resolution_px}x{resolution_px}",
        "date": date.isoformat(timespec="seconds"),
        "prediction_type": {"v_prediction": "v", "epsilon": "epsilon"}.get(prediction_type),
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


def kohya_metadata(table: Mapping[str, object]) -> dict[str, str]:
    """kohya's keys get their `ss_`; all values are text, `None` is the word None, as its own files have it."""
    return {f"ss_{key}": str(value) for key, value in table.items()}


def kohya_folders(photo_counts: Mapping[str, int]) -> dict[str, object]:
    """How many photos taught each trigger phrase, for kohya's table: a folder each in its eyes."""
    folders = {f"1_{phrase}": (phrase, count) for phrase, count in photo_counts.items()}
    frequency = {folder: {phrase: count} for folder, (phrase, count) in folders.items()}
    repeats = {folder: {"n_repeats": 1, "img_count": count} for folder, (_, count) in folders.items()}
    return {"tag_frequency": json.dumps(frequency), "dataset_dirs": json.dumps(repeats)}
