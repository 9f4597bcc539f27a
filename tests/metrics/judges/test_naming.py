"""The nearest text to an image, by an embedded judge."""

from __future__ import annotations

from PIL import Image

from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.judges.loading import load_judge
from dbcli.metrics.judges.naming import nearest_texts


def test_the_text_of_the_greatest_cosine_is_taken_for_each_image(judges: Judges) -> None:
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "white")]
    texts = ["a dog", "a cat on grass", "a red car"]
    cosines = judges.clip.encode_images(images) @ judges.clip.encode_texts(texts).T
    expected = [max(range(3), key=lambda place, row=row: float(row[place])) for row in cosines]
    assert nearest_texts(judges.clip, images, texts) == [texts[place] for place in expected]


def test_the_shipped_judge_names_plain_colours() -> None:
    colours = ["red", "blue", "green", "yellow", "black"]
    images = [Image.new("RGB", (64, 64), colour) for colour in colours]
    texts = [f"a dog on a {colour} background" for colour in colours]
    assert nearest_texts(load_judge("tiny-clip"), images, texts) == texts
