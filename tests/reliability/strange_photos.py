"""Photos as broken programs and hostile people make them; run as a script it reads a folder of them within limits."""

from __future__ import annotations

import io
import json
import random
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.project import photo_makers

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def sound_photos() -> list[bytes]:
    """A small picture in every format that is read, with EXIF where the format has it."""
    found = []
    for kind in FORMATS:
        for mode in ("RGB", "L", "P"):
            if (kind, mode) in (("JPEG", "P"), ("WEBP", "P"), ("WEBP", "L")):
                continue
            buffer = io.BytesIO()
            options = {"exif": photo_makers.exif_with(6)} if kind in ("JPEG", "PNG", "WEBP") else {}
            photo_makers.marked().convert(mode).save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


def mutated(count: int, seed: int = 0) -> Iterator[bytes]:
    """Cut, flipped, overwritten, repeated, swapped: the ways in which a fuzzer breaks a file."""
    chance, photos = random.Random(seed), sound_photos()
    for _ in range(count):
        data = bytearray(chance.choice(photos))
        for _ in range(chance.randint(1, 6)):
            _mutate(data, chance, photos)
        yield bytes(data)
    for side in (20_000, 100_000, 2**31 - 1):
        yield photo_makers.png_claiming(side, side)


def _mutate(data: bytearray, chance: random.Random, photos: list[bytes]) -> None:
    place = chance.randrange(len(data)) if data else 0
    kind = chance.choice(["cut", "flip", "extreme", "repeat", "insert", "splice"])
    if kind == "cut":
        del data[max(place, 1) :]
    elif kind == "flip" and data:
        data[place] ^= 1 << chance.randrange(8)
    elif kind == "extreme":
        data[place : place + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
    elif kind == "repeat":
        data[place:place] = data[place : place + chance.randint(1, 2000)] * chance.randint(1, 20)
    elif kind == "insert":
        data[place:place] = chance.randbytes(chance.randint(1, 64))
    else:
        data[place:] = chance.choice(photos)[place:]


def main(folder: Path) -> None:
    """Reads every file; prints how many were photos, the slowest one's seconds and the memory taken, as JSON."""
    from dbcli.project.subjects.photos import Photo, read_photo

    Image.init()
    before = peak_kib()
    usable, slowest = 0, 0.0
    for path in sorted(folder.iterdir()):
        began = time.process_time()
        usable += isinstance(read_photo(path), Photo)
        slowest = max(slowest, time.process_time() - began)
    print(json.dumps({"usable": usable, "slowest": slowest, "peak_kib": peak_kib(), "before_kib": before}))


def peak_kib() -> int:
    """The most memory of this process; `getrusage` would count what the process that started it held, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]))
