"""What a CLIP sees behind the thing in an image, as the nearest of given backgrounds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from dbcli.metrics.judges.judge import Judge

if TYPE_CHECKING:
    import torch
    from PIL import Image

# A square's side as a share of the image's; eight such squares lie along the border with room between them.
BORDER_SQUARE = 0.25


def background_texts(clip: Judge, backgrounds: Sequence[str], nouns: Collection[str]) -> torch.Tensor:
    """Features of backgrounds whatever stands before them, float32 [N, D], rows of length 1: means over `nouns`."""
    texts = [f"a {noun} {background}" for background in backgrounds for noun in nouns]
    means = clip.encode_texts(texts).reshape(len(backgrounds), len(nouns), -1).mean(dim=1)
    rows: torch.Tensor = means / means.norm(dim=1, keepdim=True)
    return rows


def nearest_background(clip: Judge, image: Image.Image, texts: torch.Tensor) -> int:
    """The row of `texts` [N, D] with the greatest mean cosine to the squares along an image's border.

    The whole image would have the subject's colours taken for the background's.
    """
    cosines = clip.encode_images(border_squares(image)) @ texts.T
    return int(cosines.mean(dim=0).argmax())


def border_squares(image: Image.Image) -> list[Image.Image]:
    """Eight squares of an image's middle square: at its corners, and in the middle of its sides."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = max(1, round(side * BORDER_SQUARE))
    steps = (0, (side - square) // 2, side - square)
    places = [(left + x, top + y) for y in steps for x in steps if (x, y) != (steps[1], steps[1])]
    return [image.crop((x, y, x + square, y + square)) for x, y in places]
