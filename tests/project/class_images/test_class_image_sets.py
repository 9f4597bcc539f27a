from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from dbcli.errors import DataError, Interrupted, LockHeld, PhotoError
from dbcli.project.class_images.class_image_sets import (
    ClassImageRecipe,
    ClassImageSet,
    list_class_image_sets,
    remove_class_image_sets,
)
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import Waiting, hold
from tests.project import photo_makers as make

RECIPE = ClassImageRecipe(
    base_hash="ab" * 32,
    prompt="a photo of a dog",
    sampler="ddim",
    eta=0,
    steps=50,
    guidance=7.5,
    width=512,
    height=512,
    seed=0,
)


def add(image_set: ClassImageSet, index: int, png_bytes: bytes) -> None:
    image_set.record(index, image_set.put(index, png_bytes))


def test_the_key_is_the_class_and_twelve_hex_digits() -> None:
    key = RECIPE.key("Stuffed Animal")
    assert key.startswith("stuffed-animal-") and len(key) == len("stuffed-animal-") + 12
    assert set(key[-12:]) <= set("0123456789abcdef")
    assert RECIPE.key("../../x \x1b")[:-13] == "x"
    # sha256sum of {"base_hash": "abab…", "eta": 0.0, … "width": 512}, keys sorted, with ", " and ": "
    assert RECIPE.key("dog") == "dog-f0092f429e53"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_hash", "cd" * 32),
        ("prompt", "a dog"),
        ("sampler", "euler"),
        ("eta", 0.5),
        ("steps", 51),
        ("guidance", 7.0),
        ("width", 64),
        ("height", 64),
        ("seed", 1),
        ("precision", "bf16"),
    ],
)
def test_any_other_recipe_is_another_set(field: str, value: object) -> None:
    assert RECIPE.model_copy(update={field: value}).key("dog") != RECIPE.key("dog")


def test_seven_and_seven_point_zero_are_one_recipe() -> None:
    one = ClassImageRecipe(**{**RECIPE.model_dump(), "guidance": 7})
    assert one.key("dog") == ClassImageRecipe(**{**RECIPE.model_dump(), "guidance": 7.0}).key("dog")


def test_a_set_is_topped_up_without_redrawing(layout: Layout) -> None:
    image_set = ClassImageSet.open_or_create(layout, "dog", RECIPE)
    assert image_set.missing(3) == [0, 1, 2]
    for index in image_set.missing(3):
        add(image_set, index, b"image %d" % index)
    again = ClassImageSet.open_or_create(layout, "dog", RECIPE)
    assert again.missing(3) == [] and again.missing(5) == [3, 4]
    assert [path.name for path in again.images(5)] == ["000000.png", "000001.png", "000002.png"]
    assert [path.read_bytes() for path in again.images(2)] == [b"image 0", b"image 1"]
    assert again.line(5) == f"prior ON (3/5, reg/{RECIPE.key('dog')})"
    assert again.recorded_count() == 3


def test_damaged_missing_foreign_and_linked_images_are_drawn_again(layout: Layout, tmp_path: Path) -> None:
    image_set = ClassImageSet.open_or_create(layout, "dog", RECIPE)
    for index in range(5):
        add(image_set, index, b"image %d" % index)
    assert image_set.missing(6) == [5]
    (image_set.folder / "000001.png").write_bytes(b"image X")
    (image_set.folder / "000002.png").unlink()
    (image_set.folder / "000005.png").write_bytes(b"never recorded")
    (tmp_path / "x.png").write_bytes(b"image 3")
    (image_set.folder / "000003.png").unlink()
    (image_set.folder / "000003.png").symlink_to(tmp_path / "x.png")
    assert image_set.missing(6) == [1, 2, 3, 5]
    add(image_set, 1, b"image 1 again")
    assert image_set.missing(6) == [2, 3, 5]
    assert [path.name for path in image_set.images(6)] == ["000000.png", "000001.png", "000004.png"]


def test_an_image_whose_record_was_cut_short_is_drawn_again(layout: Layout) -> None:
    image_set = ClassImageSet.open_or_create(layout, "dog", RECIPE)
    add(image_set, 0, b"0")
    add(image_set, 1, b"1")
    lines = image_set.folder / "images.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    assert image_set.missing(2) == [1]
    add(image_set, 1, b"1")
    assert image_set.missing(2) == []


def test_an_edited_set_file_is_an_error(layout: Layout) -> None:
    folder = ClassImageSet.open_or_create(layout, "dog", RECIPE).folder
    (folder / "set.yaml").write_text((folder / "set.yaml").read_text().replace("steps: 50", "steps: 20"))
    with pytest.raises(DataError, match="does not match its folder"):
        ClassImageSet.open_or_create(layout, "dog", RECIPE)
    (folder / "set.yaml").write_text("recipe: [")
    with pytest.raises(DataError, match=r"set\.yaml"):
        ClassImageSet.open_or_create(layout, "dog", RECIPE)
    assert list_class_image_sets(layout) == []


def test_only_one_process_draws_and_its_half_files_are_swept(layout: Layout) -> None:
    image_set = ClassImageSet.open_or_create(layout, "dog", RECIPE)
    with hold(layout.class_image_set_lock(image_set.key), "x"), pytest.raises(LockHeld), image_set.lock():
        pass
    (image_set.folder / ".000000.png.0a1b2c3d.tmp").write_bytes(b"half")
    with image_set.lock():
        assert not (image_set.folder / ".000000.png.0a1b2c3d.tmp").exists()


@pytest.mark.parametrize("index", [-1, 1_000_000])
def test_an_index_out_of_range_is_a_bug(layout: Layout, index: int) -> None:
    with pytest.raises(ValueError, match="index"):
        add(ClassImageSet.open_or_create(layout, "dog", RECIPE), index, b"")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for index in range(3):
        make.save(tmp_path / "own" / f"{index}.jpg", make.plain((index * 60, 0, 0)))
    (tmp_path / "own" / ".DS_Store").write_bytes(b"x")
    return tmp_path / "own"


def test_own_photos_become_a_set_by_their_content(layout: Layout, own: Path) -> None:
    image_set = ClassImageSet.from_folder(layout, "dog", own)
    assert image_set.missing(100) == [] and len(image_set.images(100)) == 3
    assert image_set.line(100) == f"prior ON (3/3, reg/{image_set.key}, own photos)"
    with Image.open(image_set.images(100)[0]) as image:
        assert (image.mode, image.size) == ("RGB", (80, 96))
    (own / ".DS_Store").write_bytes(b"changed")
    assert ClassImageSet.from_folder(layout, "dog", own).key == image_set.key
    make.save(own / "3.jpg", make.plain((1, 250, 3)))
    more = ClassImageSet.from_folder(layout, "dog", own)
    assert more.key != image_set.key and len(more.images(1)) == 4


def test_a_second_process_waits_until_the_first_has_copied(layout: Layout, own: Path) -> None:
    layout.class_images_dir.mkdir(parents=True)
    told: list[str] = []
    with (
        hold(layout.class_images_dir / ".lock", "the class images"),
        pytest.raises(Interrupted),
    ):
        ClassImageSet.from_folder(layout, "dog", own, waiting=Waiting(told.append, lambda: bool(told)))
    assert len(told) == 1
    assert ClassImageSet.from_folder(layout, "dog", own).own_count == 3


def test_a_changed_copy_of_an_own_photo_is_an_error(layout: Layout, own: Path) -> None:
    image_set = ClassImageSet.from_folder(layout, "dog", own)
    (image_set.folder / "000001.png").write_bytes(b"x")
    with pytest.raises(DataError, match="1 of 3 images"):
        image_set.images(100)


def test_a_folder_without_photos_leaves_nothing(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.jpg").write_bytes(b"no")
    with pytest.raises(PhotoError, match=r"a\.jpg"):
        ClassImageSet.from_folder(layout, "dog", tmp_path / "own")
    assert os.listdir(layout.class_images_dir) == [".lock"]


def test_sets_are_listed_and_removed(layout: Layout, own: Path) -> None:
    assert list_class_image_sets(layout) == []
    drawn, given = ClassImageSet.open_or_create(layout, "dog", RECIPE), ClassImageSet.from_folder(layout, "cat", own)
    (layout.class_images_dir / "stray.txt").write_text("x")
    assert list_class_image_sets(layout) == [given, drawn]
    assert [one.recipe for one in list_class_image_sets(layout)] == [None, RECIPE]
    assert given.size_bytes() > 0
    with hold(layout.class_image_set_lock(drawn.key), "x"), pytest.raises(LockHeld):
        remove_class_image_sets(layout, [drawn.key])
    with pytest.raises(DataError, match="no class images 'nonsense'"):
        remove_class_image_sets(layout, [drawn.key, "nonsense"])
    assert list_class_image_sets(layout) == [given, drawn]
    remove_class_image_sets(layout, [drawn.key, drawn.key])
    assert list_class_image_sets(layout) == [given]
    with pytest.raises(DataError, match="no class images"):
        remove_class_image_sets(layout, [drawn.key])
