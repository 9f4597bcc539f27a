"""Read the files of a Qt resource bundle (.rcc), in which some Debian packages keep their pictures.

The format is that of Qt's `rcc --binary`, versions 1 to 3: a tree of nodes, their names in UTF-16, their data.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

FOLDER, DEFLATED, ZSTANDARD = 2, 1, 4
NODE_BYTES = {1: 14, 2: 22, 3: 22}


def read_bundle(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of every file of a bundle, except those packed with Zstandard."""
    content = path.read_bytes()
    if content[:4] != b"qres":
        raise ValueError(f"{path} is no Qt resource bundle: it begins with {content[:4]!r}")
    version, tree, data, names = struct.unpack(">4I", content[4:20])

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", content, names + offset)
        return content[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * NODE_BYTES[version]
        name, flags = struct.unpack_from(">IH", content, at)
        here = f"{folder}/{name_at(name)}" if node else ""
        if flags & FOLDER:
            count, first = struct.unpack_from(">2I", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, here)
        elif not flags & ZSTANDARD:
            (offset,) = struct.unpack_from(">I", content, at + 10)
            (size,) = struct.unpack_from(">I", content, data + offset)
            packed = content[data + offset + 4 : data + offset + 4 + size]
            # Four bytes with the unpacked size come before the stream.
            yield here, zlib.decompress(packed[4:]) if flags & DEFLATED else packed

    yield from walk(0, "")
