"""What a CLIP sees in images, as the nearest of given texts."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from dbcli.metrics.judges.judge import Judge


def nearest_texts(clip: Judge, images: Sequence[Image.Image], texts: Sequence[str]) -> list[str]:
    """For each of N images the text whose feature has the greatest cosine to the image's (Radford et al. 2021, 3.1)."""
    cosines = clip.encode_images(images) @ clip.encode_texts(texts).T
    return [texts[int(place)] for place in cosines.argmax(dim=1)]
