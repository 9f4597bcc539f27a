"""The nearest text to an image, by a CLIP."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from PIL import Image

from dbcli.metrics.judges.loading import load_judge


def test_the_text_of_the_greatest_cosine_is_taken_for_each_image(script: Callable[[str], ModuleType]) -> None:
    clip = load_judge("tiny-clip")
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "white")]
    texts = ["a dog", "a cat on grass", "a red car"]
    cosines = clip.encode_images(images) @ clip.encode_texts(texts).T
    expected = [max(range(3), key=lambda place, row=row: float(row[place])) for row in cosines]
    assert script("nearest_texts").nearest_texts(clip, images, texts) == [texts[place] for place in expected]
