"""From masks on disk to the weights of the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dbcli.diffusion.images import Posterior
from dbcli.errors import SubjectError
from dbcli.project.files.layout import Layout
from dbcli.project.subjects.photo_notes import captions_of, mask_hashes, mask_paths
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import store_subject
from dbcli.workflows.training.data import loss_weights
from tests.project import photo_makers


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def subject_in(layout: Layout) -> Subject:
    photos = [
        photo_makers.save(layout.root / "in" / f"{number}.png", photo_makers.plain((number, 0, 0)))
        for number in range(2)
    ]
    (layout.root / "in" / "1.txt").write_text("a dog that came with words", encoding="utf-8")
    return store_subject(layout, "dog", "dog", photos).subject


def test_places_outside_of_a_mask_count_less_and_other_pictures_whole() -> None:
    images = Posterior(torch.zeros(2, 4, 1, 2), torch.zeros(2, 4, 1, 2))
    weights = loss_weights({1: torch.tensor([[[1.0, 0.5]]])}, images, 0.2)
    assert weights is not None
    # 0.2 + 0.8 x 0.5 = 0.6
    assert [one[0, 0].tolist() for one in weights] == [[1.0, 1.0], pytest.approx([1.0, 0.6])]


def test_without_masks_there_are_no_weights() -> None:
    assert loss_weights({}, Posterior(torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)), 0.2) is None


def test_a_mask_belongs_to_the_photo_of_its_name(layout: Layout) -> None:
    subject = subject_in(layout)
    assert mask_paths(layout, subject) == [None, None]
    mask = photo_makers.save(layout.masks_dir("dog") / "0002.png")
    assert mask_paths(layout, subject) == [None, mask]
    assert mask_hashes(layout, subject)[0] is None


def test_a_mask_of_no_photo_is_a_slip_that_is_told(layout: Layout) -> None:
    subject = subject_in(layout)
    photo_makers.save(layout.masks_dir("dog") / "dog2.png")
    with pytest.raises(SubjectError, match=r"dog2\.png"):
        mask_paths(layout, subject)


def test_the_ending_of_a_mask_may_be_in_capitals(layout: Layout) -> None:
    subject = subject_in(layout)
    mask = photo_makers.save(layout.masks_dir("dog") / "0002.PNG")
    assert mask_paths(layout, subject) == [None, mask]


@pytest.mark.parametrize("name", ["0001.jpg", "0001.JPEG", "1.PNG"])
def test_an_image_that_cannot_be_a_mask_is_told_and_not_passed_over(layout: Layout, name: str) -> None:
    subject = subject_in(layout)
    photo_makers.save(layout.masks_dir("dog") / name)
    with pytest.raises(SubjectError, match=name):
        mask_paths(layout, subject)


def test_a_linked_mask_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    subject = subject_in(layout)
    layout.masks_dir("dog").mkdir()
    (layout.masks_dir("dog") / "0001.png").symlink_to(photo_makers.save(tmp_path / "elsewhere.png"))
    with pytest.raises(SubjectError, match="is a link"):
        mask_paths(layout, subject)


def test_a_text_file_beside_a_photo_wins_over_the_record(layout: Layout) -> None:
    subject = subject_in(layout)
    assert captions_of(layout, subject) == [None, "a dog that came with words"]
    (layout.photos_dir("dog") / "0002.txt").write_text(" a {dog}\non grass \n", encoding="utf-8")
    assert captions_of(layout, subject) == [None, "a {dog} on grass"]


@pytest.mark.parametrize(
    ("name", "encoding"), [("0002.TXT", "utf-8"), ("0002.txt", "utf-16"), ("0002.caption", "utf-8")]
)
def test_a_caption_beside_a_stored_photo_is_read_like_one_that_is_brought(
    layout: Layout, name: str, encoding: str
) -> None:
    subject = subject_in(layout)
    (layout.photos_dir("dog") / name).write_text("a {dog} on grass", encoding=encoding)
    assert captions_of(layout, subject) == [None, "a {dog} on grass"]
