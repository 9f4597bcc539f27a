"""What photos and class images are taught with: sentences, captions that go on from them, and the class's share."""

from __future__ import annotations

import pytest

from dbcli.project.settings.profile_settings import ImageSettings, PriorSettings, Profile
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.class_images.sentences import class_sentences, stored_draws
from dbcli.workflows.training.data import instance_prompt

PHOTO, BARE = "a photo of a {identifier} {class}", "a {identifier} {class}"
DOG = Subject(name="rex", class_noun="dog", identifier="sks")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (None, "a photo of a sks dog"),
        ("a {rex} on an orange background", "a photo of a sks dog on an orange background"),
        ("a photo of a sks dog on a sofa", "a photo of a sks dog on a sofa"),
        ("a sks dog, asleep", "a photo of a sks dog, asleep"),
        ("a {rex}", "a photo of a sks dog"),
        # It begins as no sentence does, and names the subject.
        ("two cats beside a {rex}", "two cats beside a sks dog"),
        ("a sks doghouse", "a sks doghouse"),
        # It forgot the subject.
        ("on a sofa", "a photo of a sks dog, on a sofa"),
    ],
)
def test_a_caption_goes_on_from_the_sentence_of_its_row_and_never_loses_the_identifier(
    caption: str | None, expected: str
) -> None:
    assert instance_prompt(DOG, caption, PHOTO, [PHOTO, BARE]) == expected


def test_with_one_sentence_a_caption_that_begins_otherwise_stands_as_it_is() -> None:
    assert instance_prompt(DOG, "a {rex} on a sofa", PHOTO, [PHOTO]) == "a sks dog on a sofa"


def beside(prior: PriorSettings, templates: list[str]) -> list[tuple[str, int]]:
    return [(one.template, one.settings.images) for one in class_sentences(prior, ImageSettings(templates=templates))]


def test_each_sentence_has_class_images_under_its_own_words_and_they_share_the_number() -> None:
    assert beside(PriorSettings(images=7), [PHOTO, BARE]) == [("a photo of a {class}", 4), ("a {class}", 3)]
    # One sentence twice is one set, and so is the odd order of a person's own.
    assert beside(PriorSettings(images=8), [BARE, PHOTO, BARE]) == [
        ("a {class}", 4),
        ("a photo of a {class}", 4),
        ("a {class}", 4),
    ]
    assert beside(PriorSettings(images=1), [PHOTO, BARE]) == [("a photo of a {class}", 1), ("a {class}", 1)]


def test_a_prompt_of_its_own_stands_for_the_class_beside_every_sentence() -> None:
    prior = PriorSettings(images=8, template="a {class}, drawn")
    assert beside(prior, [PHOTO, BARE]) == [("a {class}, drawn", 8), ("a {class}, drawn", 8)]


@pytest.mark.parametrize(
    ("template", "of_class"),
    [
        ("a sketch of my {identifier} {class}", "a sketch of my {class}"),
        ("{identifier} on grass", "{class} on grass"),
        ("a thing", "a photo of a {class}"),
    ],
)
def test_a_sentence_without_the_identifier_still_names_the_class(template: str, of_class: str) -> None:
    assert beside(PriorSettings(images=5), [template]) == [(of_class, 5)]


@pytest.mark.parametrize(
    ("method", "steps", "prior", "expected"),
    [
        # 600 steps of 4 rows show 32 class images 75 times.
        ("full", 600, {"source": "teacher", "images": 32}, 16),
        ("full", 600, {"source": "teacher", "images": 32, "teacher_draws": 100}, 75),
        ("full", 600, {"source": "teacher", "images": 32, "empty_share": 0.25}, 32),
        ("full", 10, {"source": "teacher", "images": 32}, 2),
        ("full", 600, {"source": "images", "images": 32}, 0),
        ("full", 600, {"source": "teacher", "images": 32, "enabled": False}, 0),
        ("lora", 600, {"source": "teacher", "images": 32}, 0),
    ],
)
def test_a_teacher_is_asked_once_in_every_round_of_the_class_images(
    method: str, steps: int, prior: dict[str, object], expected: int
) -> None:
    settings = {"method": method, "train": {"steps": steps, "batch_size": 4, "accumulation": 1}, "prior": prior}
    assert stored_draws(Profile.model_validate(settings)) == expected
