"""Photographs: those that the autoencoder may learn from, and those that only measure it.

`photographs/` holds every one with its shorter side at 512 px or less, `photographs.json` where it comes from, whose
it is, under which licence, and whether it is trained on. A photograph without a known licence is left out.
"""

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pretraining.licences import Rights, read_copyright, rights_of
from pretraining.qt_resources import read_bundle
from pretraining.settings import PICTURE_PX, Run, parser, run_from
from pretraining.sources import PHOTOGRAPHS, fetch

SHORTER_PX = 512
SMALLEST_PX = 160
# Shorter sides at which crops are cut: from the whole photograph to a detail of it.
SIDES = (128, 160, 208, 272, 352, 448)
# One in eight of those that may be trained on measures nevertheless, so that the measure is no other kind of picture.
HELD_OUT_EACH = 8

BUNDLES = ("categorization", "explore_farm_animals", "explore_world_animals", "explore_monuments")
# Drawn, rendered or abstract; or a movement whose licence says nothing.
NO_PHOTOGRAPHS = ("analogpattern_by_Peter_Nerlich", "free_by_Peter_Nerlich")
PLASMA = (
    *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite"),
    *("OneStandsOut", "Path", "summer_1am"),
)
# The licences of scikit-image's pictures stand in the docstrings of `skimage.data`.
SKIMAGE = {
    "astronaut.png": Rights("public-domain", "NASA"),
    "chelsea.png": Rights("CC0-1.0", "Stefan van der Walt"),
    "coffee.png": Rights("CC0-1.0", "Rachel Michetti"),
    "rocket.jpg": Rights("public-domain", "SpaceX"),
}
SKLEARN = {
    "china.jpg": Rights("CC-BY-2.0", "danielbuechele"),
    "flower.jpg": Rights("CC-BY-2.0", "vultilion"),
}


@dataclass(frozen=True)
class Photograph:
    """Where a photograph comes from, whose it is, and whether it is trained on; `file` lies in `photographs/`."""

    file: str
    set_name: str
    licence: str
    author: str
    trained_on: bool


def _copyright(folder: Path, package: str) -> list[tuple[str, Rights]]:
    return read_copyright((folder / "usr/share/doc" / package / "copyright").read_text(encoding="utf-8"))


def _gcompris(folder: Path) -> Iterator[tuple[str, Rights, bytes]]:
    rights = [
        (pattern, right) for pattern, right in _copyright(folder, "gcompris-qt-data") if pattern.startswith("src/act")
    ]
    for bundle in BUNDLES:
        for path, content in read_bundle(folder / "usr/share/gcompris-qt/rcc" / f"{bundle}.rcc"):
            if path.endswith((".webp", ".jpg", ".png")):
                stem = path.removeprefix("/gcompris/").rsplit(".", 1)[0]
                if (right := rights_of(stem, rights)) is not None:
                    yield f"{bundle}-{Path(stem).name}", right, content


def _wallpapers(folder: Path, package: str, inside: str, prefix: str) -> Iterator[tuple[str, Rights, bytes]]:
    rights = _copyright(folder, package)
    for path in sorted((folder / inside).glob("*.jpg")):
        right = rights_of(f"{prefix}{path.stem}", rights)
        if right is not None and path.stem not in NO_PHOTOGRAPHS:
            yield path.stem, right, path.read_bytes()


def _plasma(folder: Path) -> Iterator[tuple[str, Rights, bytes]]:
    for name in PLASMA:
        (path,) = (folder / "usr/share/wallpapers" / name / "contents/images").glob("2560x1600.*")
        yield name, Rights("GPL-2+", "KDE Visual Design Group"), path.read_bytes()


def _named(folder: Path, rights: dict[str, Rights]) -> Iterator[tuple[str, Rights, bytes]]:
    for name, right in rights.items():
        yield Path(name).stem, right, (folder / name).read_bytes()


def _all(run: Run) -> Iterator[tuple[str, str, Rights, bytes]]:
    at = {source.set_name: fetch(source, run.path("sources")) for source in PHOTOGRAPHS}
    data = at["scikit-image"] / "usr/lib/python3/dist-packages/skimage/data"
    lomiri = ("lomiri-wallpapers-16.04", "usr/share/backgrounds", "16.04/")
    mate = ("mate-backgrounds", "usr/share/backgrounds/mate/nature", "nature/")
    collections = {
        "gcompris": _gcompris(at["gcompris"]),
        "lomiri": _wallpapers(at["lomiri"], *lomiri),
        "scikit-image": _named(data, SKIMAGE),
        "scikit-learn": _named(at["scikit-learn"] / "sklearn/datasets/images", SKLEARN),
        "mate": _wallpapers(at["mate"], *mate),
        "plasma": _plasma(at["plasma"]),
    }
    for set_name, images in collections.items():
        for name, right, content in images:
            yield set_name, name, right, content


def shrink(content: bytes) -> Image.Image | None:
    """Read a picture and shrink its shorter side to 512 px; None where it is smaller than 160 px."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (2 * SHORTER_PX, 2 * SHORTER_PX))
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    shorter = min(flat.size)
    if shorter < SMALLEST_PX:
        return None
    return resize_shorter(flat, min(shorter, SHORTER_PX))


def resize_shorter(image: Image.Image, side_px: int) -> Image.Image:
    """Resize an image so that its shorter side has `side_px`."""
    factor = side_px / min(image.size)
    size = (max(side_px, round(image.width * factor)), max(side_px, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def toy_photographs(run: Run) -> Iterator[tuple[str, str, Rights, bytes]]:
    """Draw pictures of coarse noise that stand in for photographs at toy size."""
    draw = np.random.default_rng((run.seed, 11))
    for index in range(12):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((256, 192), Image.Resampling.BICUBIC).save(file, "PNG")
        yield "toy", f"toy-{index}", Rights("CC0-1.0" if index % 3 else "GPL-2+", "nobody"), file.getvalue()


def make_photographs(run: Run) -> None:
    """Fetch, read the licences of, and shrink all photographs of a run, unless that is done."""
    if run.path("photographs.json").exists():
        return
    records: list[Photograph] = []
    for set_name, name, right, content in toy_photographs(run) if run.size.name == "toy" else _all(run):
        image = shrink(content)
        if image is None:
            continue
        file = f"photographs/{set_name}-{name}.png"
        image.save(run.path(file))
        # by its name, so that another photograph more changes nothing for this one
        held_out = zlib.crc32(name.encode()) % HELD_OUT_EACH == 0
        records.append(Photograph(file, set_name, right.licence, right.author, right.free_to_train and not held_out))
    run.path("photographs.json").write_text(json.dumps([asdict(one) for one in records], indent=1, ensure_ascii=False))


def load_records(run: Run) -> list[Photograph]:
    """Return what is known of every photograph of a run."""
    return [Photograph(**record) for record in json.loads(run.path("photographs.json").read_text())]


class Crops:
    """Random crops of the photographs that are trained on, at every scale, in varied light and colour."""

    def __init__(self, run: Run) -> None:
        self._levels: list[list[np.ndarray]] = []
        for record in load_records(run):
            if record.trained_on:
                with Image.open(run.folder / record.file) as image:
                    sides = [side for side in SIDES if side <= min(image.size)]
                    self._levels.append([np.asarray(resize_shorter(image, side)) for side in sides])

    def __call__(self, count: int, side_px: int, generator: torch.Generator) -> Tensor:
        """Return crops float32 [count, 3, side, side] in [-1, 1]."""
        draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        made = []
        for _ in range(count):
            levels = self._levels[int(draw.integers(len(self._levels)))]
            pixels = levels[int(draw.integers(len(levels)))]
            top, left = (int(draw.integers(0, pixels.shape[axis] - side_px + 1)) for axis in (0, 1))
            crop = pixels[top : top + side_px, left : left + side_px].astype(np.float32) / 255
            if draw.random() < 0.5:
                crop = crop[:, ::-1]
            if draw.random() < 0.2:
                crop = crop[..., draw.permutation(3)]
            made.append(np.clip(crop ** np.exp(draw.normal() * 0.2) * np.exp(draw.normal(size=3) * 0.06), 0, 1))
        return torch.from_numpy(np.stack(made).astype(np.float32)).permute(0, 3, 1, 2) * 2 - 1


def centre_square(image: Image.Image, side_px: int = PICTURE_PX) -> np.ndarray:
    """Return the largest centred square of an image, resized, as uint8 [side, side, 3]."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((side_px, side_px), Image.Resampling.LANCZOS))


def held_out_photographs(run: Run) -> tuple[np.ndarray, list[Photograph]]:
    """Return the photographs that only measure, as centred squares uint8 [N, 128, 128, 3], and their records."""
    records = [record for record in load_records(run) if not record.trained_on]
    squares = []
    for record in records:
        with Image.open(run.folder / record.file) as image:
            squares.append(centre_square(image))
    return np.stack(squares), records


def main() -> None:
    """Fetch the photographs and say under which licences they stand."""
    run = run_from(parser(main.__doc__ or "").parse_args())
    make_photographs(run)
    records = load_records(run)
    for key in sorted({(record.set_name, record.licence, record.trained_on) for record in records}):
        count = sum((record.set_name, record.licence, record.trained_on) == key for record in records)
        print(f"{key[0]:14} {key[1]:22} {'trained on' if key[2] else 'measures only':14} {count}")


if __name__ == "__main__":
    main()
