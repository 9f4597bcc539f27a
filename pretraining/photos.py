"""The bundled photos: two individuals, a dog and a teapot, modelled by us and drawn from five sides each."""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from pretraining.scenes import SCENES, plain
from pretraining.solids import Solid, blend, capsule, ellipsoid, photograph, plain_paint, torus

PHOTO_PX = 256
LICENCE = "CC0-1.0, rendered by pretraining/photos.py"
# camera: turn, lift, distance, aim; backdrop
DOG_VIEWS = (
    (-38.0, 14.0, 3.9, 0.78, "grass"),
    (-72.0, 10.0, 4.0, 0.8, "room"),
    (28.0, 18.0, 3.8, 0.76, "beach"),
    (-118.0, 16.0, 4.0, 0.78, "white"),
    (-12.0, 8.0, 3.8, 0.8, "plain orange"),
)
TEAPOT_VIEWS = (
    (-75.0, 16.0, 3.6, 0.55, "wood"),
    (-105.0, 24.0, 3.7, 0.55, "white"),
    (-50.0, 12.0, 3.5, 0.55, "grass"),
    (105.0, 18.0, 3.6, 0.55, "room"),
    (-88.0, 8.0, 3.4, 0.55, "plain gray"),
)


def fur(points: np.ndarray) -> np.ndarray:
    """White fur with a ginger saddle, a ginger mask over the left eye and a dark tip of the tail."""
    colour = np.broadcast_to(np.array([0.96, 0.94, 0.9], np.float32), points.shape).copy()
    x, y, z = points.T
    wave = 0.05 * np.sin(9 * x) + 0.05 * np.cos(8 * z)
    saddle = ((x + 0.25) / 0.42) ** 2 + ((y - 1.05) / 0.36) ** 2 < 1 + wave * 3
    mask = (x - 0.86) ** 2 + (y - 1.45) ** 2 + (z + 0.24) ** 2 < (0.27 + wave) ** 2
    colour[saddle | mask] = (0.85, 0.46, 0.13)
    colour[(x < -0.82) & (y > 1.1)] = (0.25, 0.16, 0.12)
    return colour


def make_dog() -> list[Solid]:
    """Return the dog: white and ginger, one black ear, one ginger ear, a blue collar with a yellow tag."""
    legs = [capsule((x, 0.7, z), (x + 0.02, 0.1, z * 1.1), 0.14, 0.1) for x in (0.38, -0.42) for z in (0.19, -0.19)]
    paws = [ellipsoid((x + 0.07, 0.08, z * 1.1), (0.15, 0.085, 0.11)) for x in (0.4, -0.4) for z in (0.19, -0.19)]
    body = blend(
        ellipsoid((-0.05, 0.82, 0), (0.62, 0.33, 0.31)),
        ellipsoid((0.34, 0.9, 0), (0.3, 0.34, 0.29)),
        capsule((0.42, 1.0, 0), (0.66, 1.35, 0), 0.22, 0.2),
        ellipsoid((0.74, 1.44, 0), (0.33, 0.3, 0.31)),
        capsule((0.88, 1.34, 0), (1.12, 1.3, 0), 0.17, 0.13),
        capsule((-0.6, 0.95, 0), (-0.95, 1.35, 0), 0.09, 0.06),
        *legs,
        *paws,
    )
    black, ginger = plain_paint(38, 32, 34), plain_paint(205, 105, 30)
    return [
        Solid(body, fur),
        Solid(ellipsoid((0.66, 1.42, 0.33), (0.13, 0.27, 0.07)), black),
        Solid(ellipsoid((0.66, 1.42, -0.33), (0.13, 0.27, 0.07)), ginger),
        Solid(ellipsoid((1.23, 1.36, 0), (0.07, 0.06, 0.08)), black),
        Solid(ellipsoid((0.99, 1.54, 0.14), (0.05, 0.06, 0.05)), black),
        Solid(ellipsoid((0.99, 1.54, -0.14), (0.05, 0.06, 0.05)), black),
        Solid(ellipsoid((1.1, 1.17, 0), (0.09, 0.05, 0.06)), plain_paint(225, 95, 110)),
        Solid(torus((0.53, 1.16, 0), (0.45, 0.9, 0), 0.235, 0.05), plain_paint(30, 90, 215)),
        Solid(ellipsoid((0.79, 1.02, 0), (0.05, 0.08, 0.06)), plain_paint(250, 205, 40)),
    ]


def glaze(points: np.ndarray) -> np.ndarray:
    """Turquoise glaze, a broad cream belt with red dots, a dark foot."""
    colour = np.broadcast_to(np.array([0.05, 0.55, 0.58], np.float32), points.shape).copy()
    x, y, z = points.T
    belt = (y > 0.42) & (y < 0.74)
    colour[belt] = (0.97, 0.92, 0.76)
    angle = (np.arctan2(z, x) * 10 / (2 * np.pi)) % 1 - 0.5
    colour[belt & ((angle * 0.36) ** 2 + (y - 0.58) ** 2 < 0.085**2)] = (0.85, 0.13, 0.15)
    colour[y < 0.12] = (0.2, 0.2, 0.26)
    return colour


def make_teapot() -> list[Solid]:
    """Return the teapot: turquoise with a dotted cream belt, a yellow spout and handle, a red knob."""
    pot = blend(ellipsoid((0, 0.56, 0), (0.62, 0.5, 0.62)), ellipsoid((0, 0.08, 0), (0.4, 0.08, 0.4)))
    spout = blend(
        capsule((0.5, 0.45, 0), (0.84, 0.66, 0), 0.16, 0.1),
        capsule((0.84, 0.66, 0), (1.0, 0.98, 0), 0.1, 0.075),
    )
    yellow = plain_paint(245, 190, 35)
    return [
        Solid(pot, glaze),
        Solid(spout, yellow),
        Solid(torus((-0.66, 0.6, 0), (0, 0, 1), 0.29, 0.075), yellow),
        Solid(ellipsoid((0, 1.02, 0), (0.36, 0.11, 0.36)), plain_paint(12, 110, 120)),
        Solid(ellipsoid((0, 1.2, 0), (0.12, 0.12, 0.12)), plain_paint(215, 35, 40)),
    ]


def backdrop(name: str, seed: int) -> np.ndarray:
    """Return a scene of the base, out of focus, as uint8 [256, 256, 3]."""
    draw = np.random.default_rng(seed)
    scene = plain(draw, name.split()[1]) if name.startswith("plain ") else SCENES[name][0](draw)
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    image = image.resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(2.5)))


def make_photos(folder: Path, size_px: int = PHOTO_PX) -> None:
    """Write the photos of both subjects and `subjects.json` into a folder."""
    subjects = []
    for name, noun, solids, views in (
        ("patch", "dog", make_dog(), DOG_VIEWS),
        ("dotty", "teapot", make_teapot(), TEAPOT_VIEWS),
    ):
        files = []
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, (turn, lift, away, aim, scene) in enumerate(views):
            behind = np.asarray(Image.fromarray(backdrop(scene, 10 + index)).resize((size_px, size_px)))
            pixels = photograph(solids, behind, turn=turn, lift=lift, away=away, aim=aim)
            files.append(f"{name}/{index + 1}.png")
            Image.fromarray(pixels).save(folder / files[-1], optimize=True)
        subjects.append({"name": name, "class": noun, "files": files, "licence": LICENCE})
    (folder / "subjects.json").write_text(json.dumps(subjects, indent=2) + "\n")


def main() -> None:
    """Render the bundled photos."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("folder", type=Path)
    make_photos(options.parse_args().folder)


if __name__ == "__main__":
    main()
