"""Cut-out pictures of single things: rendered from the sources, trimmed, scaled, and kept with their noun and set."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pretraining.nouns import DROPPED, HELD_OUT_SETS, NOUNS
from pretraining.settings import Run
from pretraining.sources import SOURCES, fetch_all

SPRITE_PX = 160
MARGIN_PX = 5


@dataclass(frozen=True)
class Sprite:
    """What a sprite shows and where it comes from; `row` is its place in the array of sprites."""

    row: int
    noun: str
    name: str
    set_name: str

    @property
    def held_out(self) -> bool:
        """Whether this sprite may only judge, never train."""
        return self.set_name in HELD_OUT_SETS


@dataclass(frozen=True)
class Job:
    """A sprite to be rendered: either SVG text or the path of a picture with alpha."""

    noun: str
    name: str
    set_name: str
    svg: str | None
    path: Path | None


def trim(image: Image.Image) -> np.ndarray | None:
    """Trim to the visible part and scale into a premultiplied RGBA uint8 square [160, 160, 4]; None if empty."""
    image = image.convert("RGBA")
    rows, columns = np.where(np.asarray(image)[..., 3] > 16)
    if len(rows) < 200:
        return None
    image = image.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    factor = (SPRITE_PX - 2 * MARGIN_PX) / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    pixels = np.asarray(image).astype(np.float32) / 255
    # scaling straight alpha would drag the colour of invisible pixels into the edge
    pixels[..., :3] *= pixels[..., 3:]
    scaled = [Image.fromarray(pixels[..., i]).resize(size, Image.Resampling.LANCZOS) for i in range(4)]
    square = np.zeros((SPRITE_PX, SPRITE_PX, 4), np.uint8)
    top, left = (SPRITE_PX - size[1]) // 2, (SPRITE_PX - size[0]) // 2
    stacked = np.stack([np.asarray(channel) for channel in scaled], -1).clip(0, 1)
    square[top : top + size[1], left : left + size[0]] = np.round(stacked * 255)
    return square


def render(job: Job) -> np.ndarray | None:
    """Render one job to a trimmed sprite, or None where the file cannot be read."""
    if job.svg is not None:
        import resvg_py

        return trim(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=job.svg)))))
    assert job.path is not None
    with Image.open(job.path) as image:
        image.load()
        if image.mode not in ("RGBA", "LA", "P"):
            return None
        image = image.convert("RGBA")
        image.thumbnail((512, 512), Image.Resampling.LANCZOS)
        return trim(image)


def _icon_jobs(set_name: str, folder: Path) -> Iterator[Job]:
    document = json.loads((folder / "package" / "icons.json").read_text())
    width, height = document.get("width", 16), document.get("height", 16)
    for noun, entry in NOUNS.items():
        for name in entry.icons:
            icon = document["icons"].get(name)
            if icon is None or (set_name, name) in DROPPED:
                continue
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon.get('width', width)} {icon.get('height', height)}"
            head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}"'
            yield Job(noun, name, set_name, f'{head} width="384" height="384">{icon["body"]}</svg>', None)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "")).strip("-")


def _fluent_3d_jobs(folder: Path, names: Path) -> Iterator[Job]:
    emoji = json.loads((names / "package" / "en" / "data.json").read_text())
    hexcodes = {_slug(entry["label"]): entry["hexcode"].lower() for entry in emoji}
    for noun, entry in NOUNS.items():
        for name in entry.icons:
            for code in (hexcodes.get(name, ""), hexcodes.get(name, "") + "-fe0f"):
                path = folder / "package" / "assets" / f"{code}.webp"
                if path.exists():
                    yield Job(noun, name, "fluent-3d", None, path)


def jobs(folders: dict[str, Path]) -> Iterator[Job]:
    """Yield every sprite to be rendered from the unpacked sources, in a fixed order."""
    for source in SOURCES:
        if source.package.startswith("@iconify-json/"):
            yield from _icon_jobs(source.set_name, folders[source.set_name])
    yield from _fluent_3d_jobs(folders["fluent-3d"], folders["names"])
    clipart = folders["openclipart"] / "usr/share/openclipart/png"
    for noun, entry in NOUNS.items():
        for name in entry.clipart:
            yield Job(noun, name, "openclipart", None, clipart / f"{name}.png")


def draw_toy_sprites() -> tuple[list[Job], list[np.ndarray]]:
    """Draw plain shapes for four nouns in one training set and one held-out set; they stand in for the sources."""
    corners = {"apple": 40, "house": 5, "can": 4, "boot": 3}
    shown, images = [], []
    for set_name, turn in (("noto", 0), ("fluent-emoji", 9), ("twemoji", 5)):
        for index, (noun, sides) in enumerate(corners.items()):
            image = Image.new("RGBA", (SPRITE_PX, SPRITE_PX))
            colour = tuple(int(60 + 50 * ((index + 1) * k % 4)) for k in (1, 2, 3))
            circle = (SPRITE_PX // 2, SPRITE_PX // 2, SPRITE_PX * 7 // 16)
            ImageDraw.Draw(image).regular_polygon(circle, sides, rotation=turn, fill=(*colour, 255))
            sprite = trim(image)
            assert sprite is not None
            shown.append(Job(noun, noun, set_name, None, None))
            images.append(sprite)
    return shown, images


def make_sprites(run: Run) -> None:
    """Render all sprites of the run and write `sprites.npy` [N, 160, 160, 4] and `sprites.json`."""
    if run.size.name == "toy":
        shown, images = draw_toy_sprites()
    else:
        wanted = list(jobs(fetch_all(run)))
        with ProcessPoolExecutor(2) as pool:
            rendered = list(zip(wanted, pool.map(render, wanted, chunksize=8), strict=True))
        shown = [job for job, image in rendered if image is not None]
        images = [image for _, image in rendered if image is not None]
    records = [Sprite(row, job.noun, job.name, job.set_name) for row, job in enumerate(shown)]
    np.save(run.path("sprites.npy"), np.stack(images))
    run.path("sprites.json").write_text(json.dumps([asdict(record) for record in records], indent=1))


def load_sprites(run: Run) -> tuple[np.ndarray, list[Sprite]]:
    """Return the premultiplied sprites [N, 160, 160, 4] uint8 and their records."""
    records = [Sprite(**record) for record in json.loads(run.path("sprites.json").read_text())]
    return np.load(run.path("sprites.npy"), mmap_mode="r"), records
