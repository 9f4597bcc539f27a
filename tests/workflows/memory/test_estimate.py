"""What an estimate counts, before anything is run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dbcli.diffusion.estimate.footprint import update_bytes
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.subject_record import PhotoEntry, Subject
from dbcli.workflows.memory.amounts import Shapes, class_images_of, images_to_encode, prompts_to_keep
from tests.diffusion import tiny_models


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({"crop": "center"}, 5),
        ({"crop": "random"}, 5 * 8),
        ({"crop": "subject", "cutouts": 2}, 5 * 3),
        ({"crop": "subject", "cutouts": 2, "mask_loss": 1}, 5),
        ({"crop": "subject", "cutouts": 1, "scene_cutouts": 2}, 5 * 4),
        ({"crop": "subject", "scene_cutouts": 3, "scenes": ["at night"]}, 5 * 2),
        ({"crop": "subject", "scene_cutouts": 2, "mask_loss": 1}, 5),
        ({"crop": "random", "cutouts": 1, "flip": True}, 5 * 8 * 2 * 2),
    ],
)
def test_every_view_of_a_photo_and_of_its_cut_outs_is_encoded(images: dict[str, object], expected: int) -> None:
    profile = Profile.model_validate({"method": "full", "images": images})
    assert images_to_encode(profile, photos=5, class_images=0) == expected
    assert images_to_encode(profile, photos=5, class_images=200) == expected + 200


@pytest.mark.parametrize(
    ("method", "enabled", "nouns", "expected"),
    [
        ("full", True, ["dog"], 200),
        ("full", True, ["dog", "cat", "dog"], 400),
        # The project's own recipe, before anything is known of its subjects.
        ("lora", True, [], 200),
        ("full", False, ["dog", "cat"], 0),
        ("textual-inversion", True, ["dog", "cat"], 0),
    ],
)
def test_every_class_has_images_of_its_own(method: str, enabled: bool, nouns: list[str], expected: int) -> None:
    profile = Profile.model_validate({"method": method, "prior": {"enabled": enabled, "images": 200}})
    subjects = [Subject(name=f"one{place}", class_noun=noun) for place, noun in enumerate(nouns)]
    assert class_images_of(profile, subjects) == expected


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        # Two sentences, their class sentences, the empty prompt, and each of two captions behind both sentences.
        ({}, 2 + 2 + 1 + 2 * 2),
        ({"caption_share": 0}, 2 + 2 + 1),
        # Beside its own order each captioned prompt has four others.
        ({"caption_shuffle": "words"}, 2 + 2 + 1 + 2 * 2 * 5),
        # Three photos on one colour each, and in three of the three scenes.
        ({"cutouts": 1, "scene_cutouts": 2, "scenes": ["a", "b", "c"]}, 2 + 2 + 1 + 2 * (2 + 3 + 3)),
        ({"cutouts": 1, "scene_cutouts": 2, "mask_loss": 1}, 2 + 2 + 1 + 2 * 2),
    ],
)
def test_every_prompt_that_is_encoded_once_is_kept(images: dict[str, object], expected: int) -> None:
    photos = [
        PhotoEntry(file=f"000{number}.png", sha256="0" * 64, width=64, height=64, caption=caption)
        for number, caption in enumerate(("on grass", "in snow", None))
    ]
    subject = Subject(name="dog", class_noun="dog", photos=photos)
    assert prompts_to_keep(Profile.model_validate({"images": images}), [subject]) == expected


def test_the_largest_size_of_the_photos_is_what_is_estimated() -> None:
    base = tiny_models.model()
    # 4:3 and 16:9 at 64 px: 64 x 48 and 80 x 48; with squares alone 64 x 64.
    of_photos = Shapes(None, "auto", ((400, 300), (480, 270)))
    assert of_photos.largest(base) == (80, 48)
    assert replace(of_photos, buckets="off").largest(base) == (64, 64)


CPU = torch.device("cpu")


def test_an_update_in_float32_takes_the_memory_of_the_largest_weight_for_the_moment() -> None:
    # Weight and gradient where weights are rounded, two moments where these are halved; four bytes a value each.
    assert update_bytes("adamw", 100, rounds=False, device=CPU) == 0
    assert update_bytes("adafactor", 100, rounds=True, device=CPU) == 800
    assert update_bytes("adamw16bit", 100, rounds=False, device=CPU) == 800
    assert update_bytes("adamw16bit", 100, rounds=True, device=CPU) == 1600
