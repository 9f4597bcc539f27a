"""What a person is told of their photos, in sentences and on the sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.project.subjects.subject_store import list_subjects, store_subject
from dbcli.workflows.progress import Silence
from dbcli.workflows.subjects.photo_review import PhotoReview, review_photos


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "p")
    made.root.mkdir()
    save_settings(made, ProjectSettings(base="tiny"))
    return made


def textured(seed: int, size: tuple[int, int] = (256, 256)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, size=(size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def reviewed(layout: Layout, photos: dict[str, Image.Image]) -> PhotoReview:
    folder = layout.root.parent / "given"
    folder.mkdir(exist_ok=True)
    for name, photo in photos.items():
        photo.save(folder / name)
    added = store_subject(layout, "dog", "dog", [folder])
    return review_photos(layout, added.subject, added.source_names, Silence())


def test_each_fault_names_the_photos_by_the_names_a_person_knows(layout: Layout) -> None:
    review = reviewed(
        layout,
        {
            "a-sharp.png": textured(1),
            "b-soft.png": textured(2).filter(ImageFilter.GaussianBlur(8)),
            "c-twin.png": textured(1).resize((250, 250)),
            "d-long.png": textured(4, (512, 256)),
        },
    )
    found = {fault.kind: fault.photos for fault in review.faults}
    assert found["blurry"] == ["b-soft.png"]
    assert found["near-duplicate"] == ["a-sharp.png", "c-twin.png"]
    assert found["much-cropped"] == ["d-long.png"]
    assert "too-small" not in found


def test_photos_under_the_projects_resolution_are_too_small(layout: Layout) -> None:
    save_settings(layout, ProjectSettings(base="tiny", resolution=512))
    review = reviewed(layout, {"a.png": textured(1), "b.png": textured(2, (600, 600))})
    small = next(fault for fault in review.faults if fault.kind == "too-small")
    assert small.photos == ["a.png"]
    assert "512 px" in small.text


def test_good_photos_have_no_fault_and_a_sheet(layout: Layout) -> None:
    review = reviewed(layout, {"a.png": textured(1), "b.png": textured(2)})
    assert review.faults == []
    assert review.looked_at == 2
    assert review.sheet == layout.root / "subjects" / "dog" / "contact-sheet.png"
    with Image.open(review.sheet) as sheet:
        assert sheet.width > 2 * 192


def test_photos_of_one_name_in_two_folders_are_told_apart(layout: Layout) -> None:
    for number, folder in enumerate(("one", "two")):
        (layout.root.parent / "given" / folder).mkdir(parents=True)
        image = textured(number) if number == 0 else textured(number).filter(ImageFilter.GaussianBlur(8))
        image.save(layout.root.parent / "given" / folder / "IMG_1.png")
    review = reviewed(layout, {})
    assert [fault.photos for fault in review.faults if fault.kind == "blurry"] == [["0002.png"]]


def test_three_copies_of_a_photo_are_one_fault(layout: Layout) -> None:
    photo = textured(1)
    review = reviewed(layout, {f"{side}.png": photo.resize((side, side)) for side in (256, 250, 244)})
    assert [fault.photos for fault in review.faults] == [["244.png", "250.png", "256.png"]]


def test_bars_and_a_small_subject_are_told_with_what_to_do(layout: Layout) -> None:
    barred = textured(1)
    barred.paste("black", (0, 0, 256, 30))
    barred.paste("black", (0, 226, 256, 256))
    small = Image.new("RGB", (256, 256), (200, 205, 210))
    small.paste(textured(2).resize((64, 64)), (90, 90))
    faults = {one.kind: one for one in reviewed(layout, {"a.png": barred, "b.png": small}).faults}
    assert faults["black-bars"].photos == ["a.png"]
    assert "cut them away" in faults["black-bars"].text
    assert faults["small-subject"].photos == ["b.png"]
    assert "less than an eighth of the 128 px square" in faults["small-subject"].text


@pytest.mark.parametrize(("side", "small"), [(64, True), (128, False)])
def test_a_mask_says_how_large_the_subject_is_before_any_background(layout: Layout, side: int, small: bool) -> None:
    save_settings(layout, ProjectSettings(base="tiny", profile="full"))
    textured(1, (512, 256)).save(layout.root.parent / "a.png")
    added = store_subject(layout, "dog", "dog", [layout.root.parent / "a.png"])
    mask = Image.new("L", (512, 256))
    mask.paste(255, (200, 60, 200 + side, 60 + side))
    mask.paste(255, (0, 0, 100, 256))  # the crop leaves this out
    layout.masks_dir("dog").mkdir()
    mask.save(layout.masks_dir("dog") / "0001.png")
    review = review_photos(layout, added.subject, added.source_names, Silence())
    assert ("small-subject" in {fault.kind for fault in review.faults}) == small


def test_the_sheet_shows_the_pixels_that_training_has(layout: Layout) -> None:
    # A stripe in 6 of 516 px: finer than 128 px can hold, and coarser than the sheet's 192.
    fine = Image.fromarray(np.tile(np.array([[0, 0, 0, 255, 255, 255]], dtype=np.uint8), (516, 86))).convert("RGB")
    with Image.open(reviewed(layout, {"a.png": fine}).sheet) as sheet:
        middle = np.asarray(sheet.convert("L"))[100:180, 60:160]
    assert middle.min() > 110 and middle.max() < 145
    save_settings(layout, ProjectSettings(base="tiny", resolution=512))
    with Image.open(review_photos(layout, list_subjects(layout)[0], ["a.png"], Silence()).sheet) as sheet:
        assert np.ptp(np.asarray(sheet.convert("L"))[100:180, 60:160]) > 60


def test_a_square_around_the_mask_shows_a_small_subject_large_and_loses_none_of_it(layout: Layout) -> None:
    # Red, 40 of 512 x 256 px, far from the centre: the centre crop would lose it.
    photo = textured(5, (512, 256))
    photo.paste((255, 0, 0), (440, 100, 480, 140))
    given = layout.root.parent / "given"
    given.mkdir()
    photo.save(given / "a.png")
    added = store_subject(layout, "dog", "dog", [given])
    mask = Image.new("L", photo.size)
    mask.paste(255, (440, 100, 480, 140))
    layout.masks_dir("dog").mkdir()
    mask.save(layout.masks_dir("dog") / "0001.png")
    review = review_photos(layout, added.subject, added.source_names, Silence())
    assert not {"small-subject", "much-cropped"} & {fault.kind for fault in review.faults}
    sheet = np.asarray(Image.open(review.sheet).convert("RGB")).astype(int)
    red = (sheet[..., 0] > 200) & (sheet[..., 1:].max(-1) < 60)
    # 76 % of a tile of 192 px a side.
    assert 0.71**2 < red.sum() / 192**2 < 0.81**2


def test_a_photo_without_a_mask_is_cropped_to_its_centre_however_plain_it_is(layout: Layout) -> None:
    # What stands out from a plain ground says how large the subject is, not that a square was laid around it.
    photo = Image.new("RGB", (512, 256), "white")
    photo.paste((200, 30, 30), (226, 98, 286, 158))
    assert "much-cropped" in {fault.kind for fault in reviewed(layout, {"a.png": photo}).faults}


def test_masks_that_training_does_not_use_are_not_looked_at(layout: Layout) -> None:
    photo = textured(5, (512, 256))
    photo.save(layout.root.parent / "a.png")
    added = store_subject(layout, "dog", "dog", [layout.root.parent / "a.png"])
    mask = Image.new("L", photo.size)
    mask.paste(255, (440, 100, 480, 140))
    layout.masks_dir("dog").mkdir()
    mask.save(layout.masks_dir("dog") / "0001.png")
    save_settings(layout, ProjectSettings(base="tiny", overrides={"images.mask_loss": 1}))
    review = review_photos(layout, added.subject, added.source_names, Silence())
    assert "much-cropped" in {fault.kind for fault in review.faults}
