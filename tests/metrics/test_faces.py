"""Scores of faces worked out by hand, and the protocol with a judge whose faces are coloured pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dbcli.metrics.faces import (
    face_likeness,
    likeness_among_photos,
    scores_of_images,
    scores_of_photos,
    without_face,
)
from dbcli.metrics.judges.faces import FaceJudge
from dbcli.metrics.judges.features_cache import FeatureStore
from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.pooling import pool_scores, score_differences
from dbcli.metrics.protocol import PromptImages, SubjectImages, score_images
from dbcli.metrics.scores import DEFINITIONS, FACE_DEFINITIONS
from dbcli.metrics.suites import is_person
from dbcli.project.runs.score_files import judges_key
from dbcli.reports.page import evaluation_page
from dbcli.reports.tables import subject_table

NOBODY = [0.0, 0.0]
# Distances to the photos [1, 0] and [1, 0.5]: 0 and 0.5; 0.3 and 0.8; 0.8 and 0.3 (at x = 1).
PHOTOS = torch.tensor([[1.0, 0.0], NOBODY, [1.0, 0.5]])


def test_likeness_is_one_less_the_mean_distance_to_the_photos_that_have_a_face() -> None:
    images = torch.tensor([[1.0, 0.0], NOBODY, [1.0, -0.5]])
    assert face_likeness(images, PHOTOS) == [pytest.approx(0.75), None, pytest.approx(0.25)]
    assert face_likeness(images, PHOTOS[1:2]) == [None, None, None]


def test_an_image_without_a_face_is_no_zero_but_lowers_both_shares() -> None:
    images = torch.tensor([[1.0, 0.0], NOBODY, [1.0, -0.5], [1.0, 0.25]])  # 0.75, none, 0.25, 0.75
    found = scores_of_images(images, PHOTOS)
    assert found == {"face": pytest.approx(1.75 / 3), "face_found": 0.75, "same_person": 0.5}


def test_the_threshold_is_a_distance_of_six_tenths() -> None:
    photo = torch.tensor([[1.0, 0.0]])
    near, far = torch.tensor([[1.0, 0.59]]), torch.tensor([[1.0, 0.61]])
    assert scores_of_images(near, photo)["same_person"] == 1.0
    assert scores_of_images(far, photo)["same_person"] == 0.0


def test_images_that_show_no_face_at_all_are_not_the_same_person() -> None:
    assert scores_of_images(torch.zeros(3, 2), PHOTOS) == {"face": None, "face_found": 0.0, "same_person": 0.0}


def test_without_a_face_among_the_photos_nothing_is_said_of_likeness() -> None:
    found = scores_of_images(torch.tensor([[1.0, 0.0], NOBODY]), torch.zeros(4, 2))
    assert found == {"face": None, "face_found": 0.5, "same_person": None}
    assert scores_of_images(torch.zeros(0, 0), PHOTOS) == {"face": None, "face_found": None, "same_person": None}


def test_photos_are_held_against_each_other_and_never_against_themselves() -> None:
    assert likeness_among_photos(PHOTOS) == [pytest.approx(0.5), None, pytest.approx(0.5)]
    assert scores_of_photos(PHOTOS) == {
        "face": pytest.approx(0.5),
        "face_found": pytest.approx(2 / 3),
        "same_person": pytest.approx(2 / 3),
    }
    assert scores_of_photos(PHOTOS[:2]) == {"face": None, "face_found": 0.5, "same_person": None}
    assert without_face(PHOTOS, ["a.png", "b.png", "c.png"]) == ["b.png"]


@pytest.mark.parametrize(
    ("noun", "person"),
    [("man", True), ("old Woman", True), ("face", True), ("dog", False), ("toy man", False), ("baby elephant", False)],
)
def test_the_last_word_says_whether_a_class_is_a_person(noun: str, person: bool) -> None:
    assert is_person(noun) is person


def see(image: Image.Image) -> Sequence[float] | None:
    """Black shows nobody; another colour is a face, described by its red and green."""
    red, green, _ = image.resize((1, 1)).convert("RGB").tobytes()
    return [red / 255, green / 255] if red else None


FACES = FaceJudge(see, {"colours": "aa" * 32}, "colours", "pixels 1", "a test", {"face": "the colour"})


def coloured(path: Path, *colours: tuple[int, int, int]) -> tuple[Path, ...]:
    path.mkdir(parents=True)
    files = []
    for number, colour in enumerate(colours):
        files.append(path / f"{number}.png")
        Image.new("RGB", (40, 40), colour).save(files[-1])
    return tuple(files)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> SubjectImages:
    """Photos at green 0 and 51 (0.2 apart) and one without a face; a prompt asks for another look."""
    root = tmp_path_factory.mktemp("person")
    photos = coloured(root / "photos", (255, 0, 0), (255, 51, 9), (0, 0, 40))
    snow = coloured(root / "snow", (255, 0, 1), (0, 0, 90), (255, 255, 1))  # 0.9, nobody, 0.1
    beach = coloured(root / "beach", (255, 51, 2))  # 0.9
    red = coloured(root / "red", (255, 255, 3))
    prompts = tuple(
        PromptImages(
            f"a sks man {text}", f"a man {text}", files, f"a {{identifier}} {{class}} {text}", keeps_look=keeps
        )
        for text, files, keeps in (("in the snow", snow, True), ("on the beach", beach, True), ("in red", red, False))
    )
    return SubjectImages("ann", "man", photos, prompts, is_person=True)


@pytest.fixture(scope="module")
def scores(person: SubjectImages, judges: Judges) -> dict[str, Any]:
    dog = replace(person, name="dog", class_noun="dog", is_person=False)
    return score_images([person, dog], replace(judges, face=FACES))


def test_faces_stand_beside_the_other_scores_of_a_person(scores: dict[str, Any]) -> None:
    ann, dog = scores["subjects"]
    assert [prompt["scores"]["face"] for prompt in ann["prompts"]] == [pytest.approx(0.5), pytest.approx(0.9), None]
    # Means over images: of three that have a face, and of four that were asked to look like the subject.
    assert ann["scores"]["face"]["value"] == pytest.approx((0.9 + 0.1 + 0.9) / 3)
    assert ann["scores"]["face_found"]["value"] == pytest.approx(3 / 4)
    assert ann["scores"]["same_person"]["value"] == pytest.approx(2 / 4)
    assert ann["real"]["face"] == pytest.approx(0.8)
    assert ann["photos_without_face"] == ["2.png"]
    assert scores["overall"]["face"]["value"] == ann["scores"]["face"]["value"]
    assert not FACE_DEFINITIONS.keys() & {*dog["scores"], *dog["real"], *dog["prompts"][0]["scores"]}
    assert scores["protocol"]["judges"]["face"]["weights_sha256"] == "aa" * 32


def test_without_a_person_nothing_of_a_record_changes(person: SubjectImages, judges: Judges) -> None:
    dog = replace(person, is_person=False)
    found = score_images([dog], judges)
    assert set(found["overall"]) == set(found["protocol"]["scores"]) == set(DEFINITIONS)
    assert score_images([person], judges) == found  # nor without the judge


def test_scores_of_faces_pool_and_differ_by_their_faces(scores: dict[str, Any]) -> None:
    pooled = pool_scores([scores, scores])
    assert pooled["overall"]["face"] == scores["overall"]["face"]
    assert pooled["real"]["face"] == pytest.approx(0.8)
    assert score_differences(scores, scores)["face"]["value"] == 0.0


def test_tables_and_pages_show_faces_where_there_are_any(scores: dict[str, Any]) -> None:
    table = subject_table(scores)
    assert table.headers[-3:] == ("FACE ↑", "face found ↑", "same person ↑")
    assert table.rows[0][-3:] == ("0.800", "67%", "67%")
    assert table.rows[3][-3:] == ("–", "–", "–")
    page = evaluation_page(scores | {"suite": "own"}, title="ann")
    assert "dlib" in page and "same person" in page


def test_the_same_judges_compare_whether_or_not_faces_were_seen_too(scores: dict[str, Any]) -> None:
    described = scores["protocol"]["judges"]
    without = {part: one for part, one in described.items() if part != "face"}
    assert judges_key(described) == judges_key(without)


def test_descriptors_are_kept_by_the_weights_hash(person: SubjectImages, tmp_path: Path) -> None:
    first, again = FeatureStore(tmp_path), FeatureStore(tmp_path)
    expected = first.features(person.photos, [FACES])[0]
    assert torch.equal(again.features(person.photos, [FACES])[0], expected)
    assert (again.hits, again.misses) == (3, 0)
    again.features(person.photos, [replace(FACES, weights={"colours": "bb" * 32})])
    assert again.misses == 3
