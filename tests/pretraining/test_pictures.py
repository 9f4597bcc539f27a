"""Where pictures come from: licences read from packages, Qt bundles, photographs that may or may not be learnt from."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pretraining.licences import Rights, read_copyright, rights_of
from pretraining.photographs import Crops, held_out_photographs, load_records, make_photographs, resize_shorter
from pretraining.qt_resources import read_bundle
from pretraining.settings import TOY, Run

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2010, The team
License: GPL-3

Files: pictures/fish*.jpg
       pictures/cat.jpg
Copyright: 2012, One Person
 2013, Another
License: CC-BY-2.0
Comment: found somewhere

Files: pictures/fish2.png
Copyright: none
License: public-domain

License: CC-BY-2.0
 The text of the licence.
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(tmp_path_factory.mktemp("photographs"), TOY, 0, torch.device("cpu"), bfloat16=False)
    make_photographs(made)
    return made


@pytest.mark.parametrize(
    ("path", "licence", "author"),
    [
        ("pictures/dog", "GPL-3", "2010, The team"),
        ("pictures/cat", "CC-BY-2.0", "2012, One Person, 2013, Another"),
        ("pictures/fish7", "CC-BY-2.0", "2012, One Person, 2013, Another"),
        ("pictures/fish2", "public-domain", "none"),
    ],
)
def test_the_last_pattern_that_fits_gives_the_rights_of_a_file(path: str, licence: str, author: str) -> None:
    assert rights_of(path, read_copyright(COPYRIGHT)) == Rights(licence, author)


def test_a_file_that_no_pattern_fits_has_no_rights() -> None:
    assert rights_of("elsewhere/dog", read_copyright(COPYRIGHT)[1:]) is None


@pytest.mark.parametrize("licence", ["public-domain", "CC0-1.0", "CC0", "CC-BY-2.0", "CC-BY-4.0", "MIT", "Expat"])
def test_free_licences_may_be_trained_on(licence: str) -> None:
    assert Rights(licence, "").free_to_train


@pytest.mark.parametrize(
    "licence", ["GPL-2+", "CC-BY-SA-4.0", "CC-BY-NC-2.0", "CC-BY-ND-2.0", "GFDL-NIV-1.2", "MIT and GPL-2", ""]
)
def test_other_licences_only_measure(licence: str) -> None:
    assert not Rights(licence, "").free_to_train


def qt_bundle(files: dict[str, bytes], folder: str) -> bytes:
    """Write a bundle of version 1: one folder with files; those whose name ends in .z are deflated."""
    names, data, nodes = b"", b"", []

    def name(text: str) -> int:
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    nodes.append(struct.pack(">IHII", 0, 2, 1, 1))
    nodes.append(struct.pack(">IHII", name(folder), 2, len(files), 2))
    for file, content in files.items():
        packed = struct.pack(">I", len(content)) + zlib.compress(content) if file.endswith(".z") else content
        nodes.append(struct.pack(">IHHHI", name(file), int(file.endswith(".z")), 0, 0, len(data)))
        data += struct.pack(">I", len(packed)) + packed
    tree = b"".join(nodes)
    head = 20
    return b"qres" + struct.pack(">4I", 1, head, head + len(tree), head + len(tree) + len(data)) + tree + data + names


def test_a_bundle_gives_its_files_with_their_paths_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "pictures.rcc"
    path.write_bytes(qt_bundle({"fish.webp": b"plain", "cat.z": b"deflated" * 50}, "images"))
    assert dict(read_bundle(path)) == {"/images/fish.webp": b"plain", "/images/cat.z": b"deflated" * 50}


def test_a_file_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.rcc"
    path.write_bytes(b"RIFF, and so on")
    with pytest.raises(ValueError, match="other.rcc is no Qt resource bundle"):
        list(read_bundle(path))


def test_only_photographs_under_a_free_licence_are_trained_on(run: Run) -> None:
    records = load_records(run)
    assert {record.licence for record in records} == {"CC0-1.0", "GPL-2+"}
    assert {record.licence for record in records if record.trained_on} == {"CC0-1.0"}
    assert any(record.licence == "CC0-1.0" and not record.trained_on for record in records)


def test_held_out_photographs_are_squares_of_the_size_of_the_base(run: Run) -> None:
    squares, records = held_out_photographs(run)
    assert squares.shape == (len(records), 128, 128, 3)
    assert not any(record.trained_on for record in records)


def test_crops_are_repeatable_and_in_range(run: Run) -> None:
    crops = Crops(run)
    first, again = (crops(6, 64, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (6, 3, 64, 64)
    assert first.dtype == torch.float32
    assert -1 <= float(first.min()) < float(first.max()) <= 1
    assert torch.equal(first, again)


def test_resizing_sets_the_shorter_side() -> None:
    from PIL import Image

    assert resize_shorter(Image.new("RGB", (300, 200)), 128).size == (192, 128)
    assert resize_shorter(Image.fromarray(np.zeros((400, 100, 3), np.uint8)), 50).size == (50, 200)
