"""Scenes drawn by us: every function returns a background float32 [128, 128, 3] in [0, 255] from a random generator."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pretraining.nouns import COLOURS
from pretraining.settings import DETAIL, PICTURE_PX

Draw = np.random.Generator
ROWS, COLUMNS = np.mgrid[0:PICTURE_PX, 0:PICTURE_PX].astype(np.float32) / PICTURE_PX


def smooth_noise(draw: Draw, cells: int) -> np.ndarray:
    """Return noise [128, 128] of about unit variance with `cells` bumps across the picture."""
    coarse = Image.fromarray(draw.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC))


def near(draw: Draw, colour: tuple[int, int, int], spread: float = 10) -> np.ndarray:
    """Return a colour near the given one."""
    return np.array(colour, np.float32) + draw.normal(size=3) * spread


def fade(top: np.ndarray, bottom: np.ndarray, height: float = 1.0) -> np.ndarray:
    """Return a vertical gradient that reaches `bottom` at `height` of the picture."""
    weight = np.clip(ROWS / height, 0, 1)[..., None]
    return top * (1 - weight) + bottom * weight


def disc(row: float, column: float, radius: float) -> np.ndarray:
    """Return the mask [128, 128] of a disc; positions are fractions of the picture."""
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 < radius**2


def speck(draw: Draw, image: np.ndarray, rows: int, light: float) -> None:
    """Set a star or a flake, two pixels wide or one, at random into the upper `rows` of a picture."""
    side = int(draw.integers(1, DETAIL + 1))
    row, column = int(draw.integers(0, rows)), int(draw.integers(0, PICTURE_PX))
    image[row : row + side, column : column + side] = light


def ground(draw: Draw, image: np.ndarray, height: float, colour: tuple, cells: int, roughness: float) -> np.ndarray:
    """Cover the picture below a softly waved horizon with a textured ground."""
    mask = height + 0.02 * smooth_noise(draw, 6)[0][None, :] < ROWS
    rough = smooth_noise(draw, cells) + 0.5 * smooth_noise(draw, DETAIL * cells)
    texture = (rough * roughness)[..., None] - ((ROWS - height) * 30)[..., None]
    image[mask] = (near(draw, colour) + texture)[mask]
    return image


def sky(draw: Draw, height: float) -> np.ndarray:
    """A blue sky, paler towards the horizon."""
    return fade(near(draw, (90, 160, 235)), near(draw, (190, 225, 250)), height)


def plain(draw: Draw, colour: str) -> np.ndarray:
    """A backdrop of one colour with a little light on it."""
    base = np.ones((PICTURE_PX, PICTURE_PX, 3), np.float32) * near(draw, COLOURS[colour], 8)
    return base + (smooth_noise(draw, 3) * 4)[..., None]


def white(draw: Draw) -> np.ndarray:
    """A white backdrop."""
    return np.full((PICTURE_PX, PICTURE_PX, 3), draw.uniform(244, 255), np.float32)


def grass(draw: Draw) -> np.ndarray:
    """A lawn under the sky, with tufts."""
    height = draw.uniform(0.3, 0.55)
    image = ground(draw, sky(draw, height), height, (95, 170, 60), 20, 8)
    # Tufts of several pixels: single blades are finer than what the autoencoder keeps.
    for _ in range(int(draw.integers(16, 30))):
        row, column = draw.uniform(height + 0.05, 1.0), draw.random()
        tuft = (abs(COLUMNS - column) < 0.05 * (1 - (row - ROWS) / 0.09)) & (row >= ROWS) & (row - 0.09 < ROWS)
        image[tuft] = near(draw, (50, 120, 30), 8)
    return image


def space(draw: Draw) -> np.ndarray:
    """Stars, a nebula and sometimes planets."""
    glow = draw.choice(np.array([[14, 4, 26], [6, 10, 28], [22, 6, 18]]))
    image = near(draw, (12, 10, 32), 4) + np.clip(smooth_noise(draw, 4), 0, 3)[..., None] * glow
    image = image.astype(np.float32)
    for _ in range(draw.integers(18, 45)):
        speck(draw, image, PICTURE_PX, draw.uniform(150, 255))
    for _ in range(draw.integers(0, 3)):
        colour = COLOURS[str(draw.choice(["orange", "blue", "red", "purple", "gray"]))]
        image[disc(draw.random(), draw.random(), draw.uniform(0.05, 0.12))] = near(draw, colour, 15)
    return image


def beach(draw: Draw) -> np.ndarray:
    """Sky, sea and sand."""
    height = draw.uniform(0.25, 0.4)
    image = ground(draw, sky(draw, height), height, (40, 140, 200), 20, 8)
    return ground(draw, image, height + draw.uniform(0.15, 0.25), (235, 210, 150), 50, 6)


def snow(draw: Draw) -> np.ndarray:
    """White ground under a pale sky, with flakes."""
    height = draw.uniform(0.3, 0.5)
    image = fade(near(draw, (150, 185, 220)), near(draw, (215, 228, 240)), height)
    image = ground(draw, image, height, (250, 251, 254), 16, 4)
    for _ in range(draw.integers(10, 40)):
        speck(draw, image, PICTURE_PX, 255)
    return image


def water(draw: Draw) -> np.ndarray:
    """Under water: blue-green depth, bubbles and light."""
    image = fade(near(draw, (40, 175, 205)), near(draw, (5, 60, 110))) + (smooth_noise(draw, 8) * 6)[..., None]
    for _ in range(draw.integers(4, 12)):
        row, column, radius = draw.random(), draw.random(), draw.uniform(0.012, 0.035)
        ring = disc(row, column, radius + 0.012) & ~disc(row, column, max(radius - 0.012, 0))
        image[ring] = image[ring] * 0.4 + 150
    return image


def night(draw: Draw) -> np.ndarray:
    """A dark meadow under moon and stars."""
    height = draw.uniform(0.6, 0.75)
    image = fade(near(draw, (18, 24, 70), 5), near(draw, (50, 58, 120), 5), height)
    for _ in range(draw.integers(5, 15)):
        speck(draw, image, 40 * DETAIL, 220)
    image[disc(draw.uniform(0.08, 0.25), draw.uniform(0.1, 0.9), 0.08)] = (245, 240, 200)
    return ground(draw, image, height, (22, 42, 36), 30, 4)


def desert(draw: Draw) -> np.ndarray:
    """Orange dunes under a hot sky."""
    height = draw.uniform(0.35, 0.5)
    image = fade(near(draw, (240, 180, 110)), near(draw, (250, 220, 165)), height)
    image = ground(draw, image, height, (215, 135, 65), 5, 10)
    return ground(draw, image, height + 0.2, (225, 150, 75), 5, 8)


def wood(draw: Draw) -> np.ndarray:
    """Planks of a wooden floor or table."""
    colour = draw.choice(np.array([(165, 110, 65), (195, 145, 90), (120, 78, 45)]))
    grain = Image.fromarray(draw.normal(size=(PICTURE_PX, 4 * DETAIL)).astype(np.float32))
    image = np.ones((PICTURE_PX, PICTURE_PX, 3), np.float32) * near(draw, colour, 8)
    image += (np.asarray(grain.resize((PICTURE_PX, PICTURE_PX))) * 7)[..., None]
    plank = int(draw.integers(10 * DETAIL, 18 * DETAIL))
    for row in range(int(draw.integers(0, plank)), PICTURE_PX, plank):
        image[row : row + DETAIL] *= 0.6
        image[row : row + plank] += draw.normal() * 6
    return image


def brick(draw: Draw) -> np.ndarray:
    """A brick wall."""
    mortar, stone = near(draw, (190, 180, 170), 8), near(draw, (170, 75, 55))
    image = np.ones((PICTURE_PX, PICTURE_PX, 3), np.float32) * mortar
    height, width, start = 8 * DETAIL, 16 * DETAIL, int(draw.integers(0, 8 * DETAIL))
    for course, row in enumerate(range(-start, PICTURE_PX, height)):
        for column in range(-width + (course % 2) * width // 2 - start, PICTURE_PX, width):
            place = (
                slice(max(row, 0), max(row + height - DETAIL, 0)),
                slice(max(column, 0), max(column + width - DETAIL, 0)),
            )
            image[place] = stone + draw.normal() * 10
    return image + (smooth_noise(draw, 32 * DETAIL) * 4)[..., None]


def forest(draw: Draw) -> np.ndarray:
    """Trunks and leaves."""
    image = np.ones((PICTURE_PX, PICTURE_PX, 3), np.float32) * near(draw, (120, 170, 120), 8)
    for layer in range(14):
        trunk = (abs(COLUMNS - draw.random()) < draw.uniform(0.02, 0.05)) & (ROWS < 0.8)
        image[trunk] = near(draw, (85, 60, 40), 8) * (0.6 + 0.4 * layer / 14)
    for _ in range(12):
        leaves = disc(draw.uniform(-0.05, 0.3), draw.random(), draw.uniform(0.1, 0.2))
        image[leaves] = near(draw, (35, 105, 45))
    return ground(draw, image, 0.72, (70, 110, 45), 40, 10)


def city(draw: Draw) -> np.ndarray:
    """A skyline of houses with windows, and asphalt."""
    image = fade(near(draw, (150, 195, 235)), near(draw, (225, 230, 240)))
    left = 0
    while left < PICTURE_PX:
        width, top = int(draw.integers(7, 14)) * DETAIL, int(draw.uniform(0.12, 0.5) * PICTURE_PX)
        wall = draw.choice(np.array([(120, 125, 140), (150, 130, 120), (95, 110, 135)]))
        image[top:, left : left + width] = near(draw, wall)
        light = (245, 230, 150) if draw.random() < 0.6 else (190, 205, 220)
        for row in range(top + 2 * DETAIL, PICTURE_PX, 4 * DETAIL):
            for column in range(left + DETAIL, left + width - DETAIL, 3 * DETAIL):
                image[row : row + DETAIL, column : column + DETAIL] = light
        left += width
    return ground(draw, image, 0.78, (90, 90, 95), 30, 4)


def room(draw: Draw) -> np.ndarray:
    """A pale wall with a window, a skirting board, a wooden floor."""
    tone = near(draw, COLOURS[str(draw.choice(list(COLOURS)))]) * 0.3 + 235 * 0.7
    image = np.ones((PICTURE_PX, PICTURE_PX, 3), np.float32) * tone
    height = draw.uniform(0.62, 0.75)
    image = ground(draw, image, height, (160, 115, 75), 10, 5)
    image[(height - 0.06 < ROWS) & (height > ROWS)] = near(draw, (250, 248, 242), 3)
    # In a corner, where the thing before it leaves it to be seen.
    row, column, pane = int(draw.integers(2, 8)), int(draw.choice([2, 3, 4, 39, 40, 41])), DETAIL
    row, column = row * pane, column * pane
    image[row : row + 21 * pane, column : column + 21 * pane] = 252
    image[row + 2 * pane : row + 19 * pane, column + 2 * pane : column + 19 * pane] = (150, 205, 240)
    image[row + 9 * pane : row + 11 * pane, column : column + 21 * pane] = 252
    image[row : row + 21 * pane, column + 9 * pane : column + 11 * pane] = 252
    return image


def mountain(draw: Draw) -> np.ndarray:
    """Gray peaks with snow above a meadow."""
    image = sky(draw, 0.7)
    for _ in range(int(draw.integers(2, 5))):
        peak_row, peak_column, slope = draw.uniform(0.08, 0.35), draw.random(), draw.uniform(0.9, 1.6)
        height = ROWS - peak_row - slope * abs(COLUMNS - peak_column)
        image[height > 0] = near(draw, (115, 120, 135))
        image[(height > 0) & (peak_row + 0.14 > ROWS)] = near(draw, (240, 244, 250), 4)
    return ground(draw, image, 0.7, (100, 150, 80), 30, 8)


SCENES: dict[str, tuple[Callable[[Draw], np.ndarray], tuple[str, ...]]] = {
    "white": (white, ("on a white background",)),
    "grass": (grass, ("on grass", "on the grass", "on green grass", "in a field")),
    "space": (space, ("in space", "in outer space")),
    "beach": (beach, ("on the beach", "on a beach")),
    "snow": (snow, ("in the snow",)),
    "water": (water, ("under water", "in the water")),
    "night": (night, ("at night",)),
    "desert": (desert, ("in the desert",)),
    "wood": (wood, ("on a wooden table", "on a wooden floor", "on top of a wooden floor")),
    "brick": (brick, ("in front of a brick wall",)),
    "forest": (forest, ("in the forest", "in the jungle")),
    "city": (city, ("in the city", "with a city in the background")),
    "room": (room, ("in a room",)),
    "mountain": (mountain, ("with a mountain in the background", "in the mountains")),
}
