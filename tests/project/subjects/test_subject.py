from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image

from dbcli.errors import Collision, DiskFull, LockHeld, PhotoError, Refused, SubjectError, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.prompts.identifiers import Words
from dbcli.project.subjects import subject_store
from dbcli.project.subjects.renaming import rename_subject
from dbcli.project.subjects.subject_store import (
    damaged_subjects,
    list_subjects,
    load_subject,
    photo_paths,
    remove_subject,
    set_identifiers,
    store_subject,
    verify_photos,
)
from tests.project import photo_makers as make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index in range(3):
        make.save(folder / f"{index}.jpg", make.plain((index * 60, 0, 0)), exif=make.exif_with(1))
    return folder


def test_a_subject_is_stored_as_numbered_png_with_its_record(layout: Layout, photos: Path) -> None:
    (photos / "1.txt").write_text("a dog on grass")
    (photos / ".DS_Store").write_bytes(b"x")
    added = store_subject(layout, "dog", "  stuffed   animal", [photos], "sks")
    assert sorted(os.listdir(layout.subject_dir("dog"))) == ["photos", "subject.yaml"]
    assert sorted(os.listdir(layout.photos_dir("dog"))) == ["0001.png", "0002.png", "0003.png"]
    subject = load_subject(layout, "dog")
    assert subject == added.subject
    assert (subject.name, subject.class_noun, subject.identifier) == ("dog", "stuffed animal", "sks")
    assert [one.caption for one in subject.photos] == [None, "a dog on grass", None]
    assert subject.words == Words("sks", "stuffed animal")
    assert [one.path.name for one in added.skipped] == [".DS_Store"]
    for entry, path in zip(subject.photos, photo_paths(layout, subject), strict=True):
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry.sha256
        assert b"SECRETCAMERA" not in data
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (entry.width, entry.height))
    assert verify_photos(layout, subject) == photo_paths(layout, subject)


def subjects_on_disk(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.subjects_dir)) if layout.subjects_dir.is_dir() else []


def test_nothing_is_left_when_no_photo_can_be_used(layout: Layout, tmp_path: Path) -> None:
    make.save(tmp_path / "in" / "a.png", make.plain(size=(10, 10)))
    (tmp_path / "in" / "b.jpg").write_bytes(b"\xff\xd8\xffbroken")
    with pytest.raises(SubjectError) as caught:
        store_subject(layout, "dog", "dog", [tmp_path / "in"])
    assert caught.value.exit_code == 3
    assert "a.png" in caught.value.message and "b.jpg" in caught.value.message
    assert subjects_on_disk(layout) == []


def test_an_empty_folder_says_so(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SubjectError, match="no photo was found"):
        store_subject(layout, "dog", "dog", [tmp_path / "in"])


def test_nothing_is_left_when_a_source_is_missing(layout: Layout, photos: Path) -> None:
    with pytest.raises(PhotoError, match=r"typo\.jpg"):
        store_subject(layout, "dog", "dog", [photos, photos / "typo.jpg"])
    assert subjects_on_disk(layout) == []


def test_nothing_is_left_when_the_disk_fills_up(layout: Layout, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full_at_the_second(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 2:
            raise DiskFull("The disk is full.")
        path.write_bytes(data)

    monkeypatch.setattr(subject_store, "write_bytes", full_at_the_second)
    with pytest.raises(DiskFull):
        store_subject(layout, "dog", "dog", [photos])
    assert len(written) == 2 and subjects_on_disk(layout) == []


def test_what_a_killed_command_left_is_swept_by_the_next(layout: Layout, photos: Path) -> None:
    (layout.subjects_dir / ".dog.0a1b2c3d.tmp" / "photos").mkdir(parents=True)
    assert list_subjects(layout) == []
    store_subject(layout, "dog", "dog", [photos])
    assert subjects_on_disk(layout) == ["dog"]


def test_a_subject_is_not_overwritten(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dog", "dog", [photos], "sks")
    with pytest.raises(Refused, match="already exists"):
        store_subject(layout, "dog", "cat", [photos], "ohwx")
    assert load_subject(layout, "dog").class_noun == "dog"


@pytest.mark.parametrize("name", ["identifier", "class", "subject"])
def test_names_with_a_meaning_in_templates_are_refused(layout: Layout, photos: Path, name: str) -> None:
    with pytest.raises(Refused, match="templates"):
        store_subject(layout, name, "dog", [photos])


@pytest.mark.parametrize(
    ("name", "noun", "identifier", "error"),
    [
        ("../dog", "dog", "sks", Refused),
        ("my dog", "dog", "sks", UsageError),
        ("dog", "\x1b", "sks", UsageError),
        ("dog", "dog", "two words", UsageError),
        ("dog", "dog", "dog", Collision),
    ],
)
def test_bad_words_leave_nothing(
    layout: Layout, photos: Path, name: str, noun: str, identifier: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        store_subject(layout, name, noun, [photos], identifier)
    assert subjects_on_disk(layout) == []


def test_two_subjects_do_not_share_an_identifier(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dog", "dog", [photos], "sks")
    with pytest.raises(Collision, match="belongs to 'dog'"):
        store_subject(layout, "cat", "cat", [photos], "SKS")
    store_subject(layout, "cat", "cat", [photos])
    with pytest.raises(Collision):
        set_identifiers(layout, {"cat": "sks"})
    assert set_identifiers(layout, {"cat": "ohwx"})[0].identifier == "ohwx"
    assert set_identifiers(layout, {"dog": "sks"})[0].identifier == "sks"
    assert load_subject(layout, "cat").identifier == "ohwx"
    assert {one.name: one.identifier for one in list_subjects(layout)} == {"cat": "ohwx", "dog": "sks"}


def test_without_an_identifier_only_the_class_noun_is_left(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dog", "dog", [photos])
    assert load_subject(layout, "dog").words.text == "dog"


def test_an_unknown_subject_names_the_known_ones(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dog", "dog", [photos])
    with pytest.raises(SubjectError, match="Known: dog") as caught:
        load_subject(layout, "cat")
    assert caught.value.hint == "dreambooth add-subject cat"


def test_changed_and_missing_photos_are_all_named(layout: Layout, photos: Path, tmp_path: Path) -> None:
    subject = store_subject(layout, "dog", "dog", [photos]).subject
    first, second, third = photo_paths(layout, subject)
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    os.replace(third, tmp_path / "moved.png")
    third.symlink_to(tmp_path / "moved.png")
    with pytest.raises(SubjectError) as caught:
        verify_photos(layout, subject)
    assert caught.value.message.splitlines()[1:] == [
        "  subjects/dog/photos/0001.png is not the photo that was added",
        "  subjects/dog/photos/0002.png is missing",
        "  subjects/dog/photos/0003.png is missing",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name: dog\n",
        "schema: 1\nname: cat\nclass_noun: cat\n",
        "name: dog\nclass_noun: dog\nphotos: [{file: ../../../etc/passwd, sha256: x, width: 1, height: 1}]\n",
        'name: dog\nclass_noun: "\\e"\n',
        "name: dog\nclass_noun: dog\nidentifier: two words\n",
        "{[",
        "\0",
    ],
)
def test_a_damaged_record_is_an_error_naming_the_file_and_the_rest_goes_on(
    layout: Layout, photos: Path, text: str
) -> None:
    store_subject(layout, "dog", "dog", [photos])
    store_subject(layout, "teapot", "teapot", [photos])
    layout.subject_file("dog").write_text(text)
    with pytest.raises(SubjectError, match=r"subject\.yaml"):
        load_subject(layout, "dog")
    assert [one.name for one in list_subjects(layout)] == ["teapot"]
    assert len(damaged_subjects(layout)) == 1


def test_a_linked_subject_folder_is_refused(layout: Layout, photos: Path, tmp_path: Path) -> None:
    store_subject(layout, "dog", "dog", [photos])
    os.rename(layout.subject_dir("dog"), tmp_path / "outside")
    (layout.subjects_dir / "dog").symlink_to(tmp_path / "outside")
    with pytest.raises(Refused, match="symbolic link"):
        load_subject(layout, "dog")
    assert list_subjects(layout) == []
    assert "symbolic link" in damaged_subjects(layout)[0]


def test_adding_waits_for_no_other_writer(layout: Layout, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_store, "LOCK_WAIT_SECONDS", 0.0)
    with hold(layout.project_lock, "the project's subjects"), pytest.raises(LockHeld):
        store_subject(layout, "dog", "dog", [photos])
    assert subjects_on_disk(layout) == []


def test_a_removed_subject_is_gone(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dog", "dog", [photos], "sks")
    remove_subject(layout, "dog")
    assert subjects_on_disk(layout) == [] and list_subjects(layout) == []


@pytest.mark.parametrize("twin", ["Dog", "DOG"])
def test_names_that_differ_in_case_alone_are_refused(layout: Layout, photos: Path, twin: str) -> None:
    store_subject(layout, "dog", "dog", [photos])
    with pytest.raises(Refused, match=f"'dog' already exists, and '{twin}' differs from it only in case"):
        store_subject(layout, twin, "dog", [photos])
    assert subjects_on_disk(layout) == ["dog"]


def test_a_subject_may_change_the_case_of_its_own_name_and_take_no_others(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dog", "dog", [photos])
    store_subject(layout, "cat", "cat", [photos])
    with pytest.raises(Refused, match="only in case"):
        rename_subject(layout, "dog", "Cat")
    assert rename_subject(layout, "dog", "Dog").name == "Dog"
    assert sorted(subjects_on_disk(layout)) == ["Dog", "cat"]


def test_a_folder_of_photos_that_is_no_subject_is_told_from_one(layout: Layout, photos: Path) -> None:
    store_subject(layout, "dogs", "dog", [photos])
    layout.subject_dir("dog").mkdir()
    make.save(layout.subject_dir("dog") / "1.jpg", make.plain((1, 2, 3)))
    for refused in (
        lambda: load_subject(layout, "dog"),
        lambda: remove_subject(layout, "dog"),
        lambda: store_subject(layout, "dog", "dog", [photos]),
    ):
        with pytest.raises((SubjectError, Refused), match="subjects/dog .*is no subject") as raised:
            refused()
        assert (
            raised.value.hint == "move the folder elsewhere; dreambooth add-subject dog FOLDER takes the photos in it"
        )
    with pytest.raises(SubjectError, match=r"Known: dogs\. Did you mean dogs\?"):
        load_subject(layout, "dgs")
