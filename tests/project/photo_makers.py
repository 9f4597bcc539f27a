"""Small pictures with known pixels, and the broken files that strangers send."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image

from dbcli.project.subjects.photos import Photo, Skipped, walk_photos

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def plain(colour: tuple[int, ...] = (200, 100, 50), size: tuple[int, int] = (80, 96), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or plain()).save(path, **options)
    return path


def marked() -> Image.Image:
    """96 x 80, grey; red in the top left corner, green in the top right one."""
    image = Image.new("RGB", (96, 80), (128, 128, 128))
    image.paste(RED, (0, 0, 16, 16))
    image.paste(GREEN, (80, 0, 96, 16))
    return image


def corner_of(image: Image.Image, colour: tuple[int, int, int]) -> str:
    """The corner whose colour is nearest to `colour`: "top left" and so on."""
    right, bottom = image.width - 5, image.height - 5
    corners = {
        "top left": (4, 4),
        "top right": (right, 4),
        "bottom left": (4, bottom),
        "bottom right": (right, bottom),
    }

    def distance(name: str) -> int:
        pixel = image.getpixel(corners[name])
        return sum(abs(a - b) for a, b in zip(pixel, colour, strict=True))

    return min(corners, key=distance)


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SECRETCAMERA"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def png_claiming(width: int, height: int) -> bytes:
    """A tiny PNG file whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


class Intake:
    """All results of `walk_photos`, by kind."""

    def __init__(self, sources: list[Path]) -> None:
        results = list(walk_photos(sources))
        self.photos = [one for one in results if isinstance(one, Photo)]
        self.skipped = [one for one in results if isinstance(one, Skipped)]

    @property
    def captions(self) -> list[str | None]:
        return [photo.caption for photo in self.photos]

    @property
    def refused(self) -> list[Skipped]:
        return [one for one in self.skipped if not one.stray]

    @property
    def notes(self) -> list[str]:
        return [f"{photo.source.name}: {note}" for photo in self.photos for note in photo.notes]
