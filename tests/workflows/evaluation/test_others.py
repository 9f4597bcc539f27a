"""Which subjects of a project an image can be taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.workflows.evaluation.others import other_subjects
from dbcli.workflows.setup.open import init_project
from dbcli.workflows.subjects.manage import add_subject
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

COLOURS = {"one": (200, 30, 30), "two": (30, 200, 30), "three": (30, 30, 200)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A dog and a cat of two photos each, and the dog once more under another name."""
    init_project(tmp_path / "p", str(write_small_base(tmp_path / "base")), None, offline=True)
    made = Layout((tmp_path / "p").resolve())
    files = {
        name: photo_makers.save(tmp_path / f"{name}.png", photo_makers.plain(one)) for name, one in COLOURS.items()
    }
    add_subject(made, "dog", "dog", [files["one"], files["two"]], "sks")
    add_subject(made, "cat", "cat", [files["three"]], "mwf")
    add_subject(made, "rex", "dog", [files["one"]], "xjy")
    return made


def test_all_others_count_but_those_that_share_a_photo(layout: Layout) -> None:
    (other,) = other_subjects(layout, "dog")
    assert (other.class_noun, len(other.photos)) == ("cat", 1)
    assert [(one.class_noun, len(one.photos)) for one in other_subjects(layout, "cat")] == [("dog", 2), ("dog", 1)]


def test_a_photo_that_was_damaged_is_left_out(layout: Layout) -> None:
    photo = next(layout.photos_dir("cat").glob("*.png"))
    photo.write_bytes(b"no picture")
    assert other_subjects(layout, "dog") == ()
