"""What a person is told of their photos, in sentences and on the sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.project.subjects.subject_store import store_subject
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
