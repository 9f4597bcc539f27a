"""Put a sprite into a scene: recolour, turn, scale, light, shade, and say in words what the picture shows."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pretraining.nouns import COLOURS, NOUNS
from pretraining.scenes import COLUMNS, ROWS, SCENES, Draw, plain
from pretraining.settings import LATENT_PX, PICTURE_PX
from pretraining.styles import STYLES, grained, in_a_style

COLOURED_SHARE = 0.3
SCENE_SHARE = 0.75
STYLE_SHARE = 0.6
PLAIN_SHARE = 0.16
SMALL_SHARE = 0.2
LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)


@dataclass(frozen=True)
class GeneratedImage:
    """One training picture: pixels uint8 [128, 128, 3], alpha float16 [16, 16], caption and what it may speak of."""

    pixels: np.ndarray
    alpha: np.ndarray
    caption: str
    noun: str
    scene: str
    colour: str
    style: str


def recolour(sprite: np.ndarray, colour: str) -> np.ndarray:
    """Give a premultiplied sprite [H, W, 4] in [0, 1] one colour and keep its light and shade."""
    alpha = sprite[..., 3:]
    light = (sprite[..., :3] / np.maximum(alpha, 1e-3)) @ LUMINANCE
    solid = alpha[..., 0] > 0.5
    if solid.sum() < 10:
        return sprite
    low, high = np.percentile(light[solid], [5, 95])
    level = np.clip((light - low) / max(high - low, 0.15), 0, 1)[..., None]
    target = np.array(COLOURS[colour], np.float32) / 255
    if colour == "black":
        shaded = 0.02 + 0.35 * level * np.ones(3)
    elif colour == "white":
        shaded = target * (0.62 + 0.38 * level)
    else:
        shaded = target * (0.35 + 0.65 * level)
        shaded = shaded + (level > 0.93) * 0.25 * (1 - shaded)
    return np.concatenate([np.clip(shaded, 0, 1) * alpha, alpha], -1).astype(np.float32)


def rotate_hue(sprite: np.ndarray, degrees: float, saturation: float) -> np.ndarray:
    """Turn the hue of a premultiplied sprite around the gray axis and scale its saturation."""
    alpha = sprite[..., 3:]
    colour = sprite[..., :3] / np.maximum(alpha, 1e-3)
    gray = (colour @ LUMINANCE)[..., None]
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    # Rodrigues' rotation formula
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    turned = gray + (colour - gray) @ turn.T * saturation
    return np.concatenate([np.clip(turned, 0, 1) * alpha, alpha], -1).astype(np.float32)


def resize(sprite: np.ndarray, size: int, degrees: float) -> np.ndarray:
    """Turn and scale a premultiplied sprite to [size, size, 4]."""
    channels = []
    for index in range(4):
        channel = Image.fromarray(np.ascontiguousarray(sprite[..., index], np.float32))
        if degrees:
            channel = channel.rotate(degrees, Image.Resampling.BILINEAR)
        channels.append(np.asarray(channel.resize((size, size), Image.Resampling.BOX)))
    return np.stack(channels, -1).clip(0, 1)


def place(draw: Draw, background: np.ndarray, sprite: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set the sprite large and near the middle, now and then smaller and anywhere.

    Return pixels uint8 [128, 128, 3] and alpha float16 [16, 16].
    """
    small_thing = draw.random() < SMALL_SHARE
    low, high, spread = (0.42, 0.66, 0.22) if small_thing else (0.66, 0.95, 0.12)
    size = int(draw.uniform(low, high) * PICTURE_PX)
    degrees = float(draw.normal() * 8) if draw.random() < 0.4 else 0.0
    small = resize(sprite, size, degrees)
    if draw.random() < 0.5:
        small = small[:, ::-1]
    room = PICTURE_PX - size
    left = int(np.clip(room * (0.5 + draw.normal() * spread), 0, room))
    top = int(np.clip(room * (0.6 + draw.normal() * spread), 0, room))
    image = background.copy()
    if draw.random() < 0.5:
        foot = ((COLUMNS - (left + size / 2) / PICTURE_PX) / 0.32) ** 2
        foot = foot + ((ROWS - (top + size * 0.96) / PICTURE_PX) / 0.06) ** 2
        image *= 1 - 0.3 * np.exp(-foot)[..., None]
    if draw.random() < 0.5:
        # light from one side, so that not every sprite is flat
        side = np.linspace(1 + draw.normal() * 0.12, 1 + draw.normal() * 0.12, size)[None, :, None]
        small = np.concatenate([np.clip(small[..., :3] * side, 0, small[..., 3:]), small[..., 3:]], -1)
    window = slice(top, top + size), slice(left, left + size)
    image[window] = image[window] * (1 - small[..., 3:]) + small[..., :3] * 255
    alpha = np.zeros((PICTURE_PX, PICTURE_PX), np.float32)
    alpha[window] = small[..., 3]
    step = PICTURE_PX // LATENT_PX
    alpha = alpha.reshape(LATENT_PX, step, LATENT_PX, step).mean((1, 3))
    return np.clip(image, 0, 255).astype(np.uint8), alpha.astype(np.float16)


def with_article(words: str) -> str:
    """Put the indefinite article before words; plural things take none."""
    if words.endswith("glasses"):
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


def choose_scene(draw: Draw) -> tuple[np.ndarray, str, str]:
    """Draw a background and return it with its scene name and one phrase for it."""
    if draw.random() < PLAIN_SHARE:
        colour = str(draw.choice(list(COLOURS)))
        return plain(draw, colour), f"plain {colour}", f"on a {colour} background"
    scene = str(draw.choice(list(SCENES)))
    function, phrases = SCENES[scene]
    return function(draw), scene, str(draw.choice(phrases))


def compose(draw: Draw, sprite: np.ndarray, noun: str, set_name: str, token: str | None) -> GeneratedImage:
    """Make one picture of a premultiplied sprite [H, W, 4] in [0, 1]; with a token, even "", it keeps its colours."""
    colour, word = "", noun
    synonyms = NOUNS[noun].synonyms
    if token is not None:
        word = f"{token} {noun}".strip()
    elif draw.random() < COLOURED_SHARE:
        colour = str(draw.choice(list(COLOURS)))
        sprite, word = recolour(sprite, colour), f"{colour} {noun}"
    else:
        sprite = rotate_hue(sprite, draw.normal() * 8, draw.uniform(0.7, 1.15))
        if synonyms and draw.random() < 0.15:
            word = str(draw.choice(synonyms))
    sprite, style = in_a_style(draw, sprite, set_name)
    background, scene, phrase = choose_scene(draw)
    pixels, alpha = place(draw, background, sprite)
    if style == "photo":
        pixels = grained(draw, pixels)
    caption = with_article(word)
    if draw.random() < STYLE_SHARE:
        caption = f"{STYLES[style]} {caption}"
    if draw.random() < SCENE_SHARE:
        caption += " " + phrase
    return GeneratedImage(pixels, alpha, caption, noun, scene, colour, style)
