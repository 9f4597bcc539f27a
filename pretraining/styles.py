"""How a thing is drawn: what each set of pictures looks like in words, and what makes a cut-out look photographed."""

import numpy as np
from PIL import Image, ImageFilter

from pretraining.scenes import Draw, smooth_noise
from pretraining.settings import DETAIL

# The words before a thing; "a photo of" is what people write who want none of the others.
STYLES = {"photo": "a photo of", "3d": "a 3d render of", "flat": "a flat icon of", "drawing": "a drawing of"}
PHOTO_SHARE = 0.5

INKED_SHARE = 0.15
OUTLINE_SHARE = 1 / 32

_OF_SET = {
    "fluent-3d": "3d",
    "fluent-emoji": "3d",
    "fluent-emoji-flat": "flat",
    "noto": "flat",
    "noto-v1": "flat",
    "fxemoji": "flat",
    "emojione": "flat",
    "twemoji": "flat",
    "emojione-v1": "flat",
    "openclipart": "drawing",
    "openmoji": "drawing",
}


def in_a_style(draw: Draw, sprite: np.ndarray, set_name: str) -> tuple[np.ndarray, str]:
    """Return a premultiplied sprite [N, N, 4] in [0, 1] as photographed, inked or as its set drew it; and the style."""
    chance = draw.random()
    if chance < PHOTO_SHARE:
        return rounded(draw, sprite), "photo"
    if chance < PHOTO_SHARE + INKED_SHARE:
        return inked(sprite), "drawing"
    return sprite, _OF_SET[set_name]


def rounded(draw: Draw, sprite: np.ndarray) -> np.ndarray:
    """Light a premultiplied sprite [N, N, 4] in [0, 1] from above and one side, and soften its edges within."""
    size = len(sprite)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    towards = draw.uniform(-0.7, 0.7)
    light = 1.02 - 0.28 * (rows * 0.8 + columns * towards) - 0.16 * (rows**2 + columns**2)
    return np.concatenate([np.clip(sprite[..., :3] * light[..., None], 0, sprite[..., 3:]), sprite[..., 3:]], -1)


def inked(sprite: np.ndarray) -> np.ndarray:
    """Draw the outline of a premultiplied sprite [N, N, 4] in [0, 1], and its strongest inner edges, in dark ink."""
    alpha = sprite[..., 3]
    visible = Image.fromarray(((alpha > 0.5) * 255).astype(np.uint8))
    outline = round(len(sprite) * OUTLINE_SHARE)
    inside = np.asarray(visible.filter(ImageFilter.MinFilter(2 * outline + 1))) > 0
    down, across = np.gradient(sprite[..., :3].mean(-1))
    # an edge as steep on a sprite of any size: 0.09 a pixel at 128 px
    line = ((alpha > 0.5) & ~inside) | (inside & (np.hypot(down, across) > 0.09 * 128 / len(sprite)))
    pixels = np.where(line[..., None], np.array([0.08, 0.07, 0.09], np.float32) * alpha[..., None], sprite[..., :3])
    return np.concatenate([pixels, sprite[..., 3:]], -1).astype(np.float32)


def grained(draw: Draw, pixels: np.ndarray) -> np.ndarray:
    """Add the grain of a sensor to pixels uint8 [128, 128, 3]."""
    grain = smooth_noise(draw, 48 * DETAIL)[..., None] * draw.uniform(1.5, 4)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)
