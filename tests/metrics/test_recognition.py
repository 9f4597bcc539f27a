"""Recognition against numbers worked out by hand: features are directions in a plane or in space."""

from __future__ import annotations

import pytest
import torch

from dbcli.metrics.recognition import (
    copied,
    identified,
    likeness_beyond_class,
    photos_identified,
    scenes_right,
    share,
)

ACROSS, UP, SLANTED, STEEP = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]
NOTHING = torch.zeros(0, 2)


def rows(*directions: list[float]) -> torch.Tensor:
    return torch.tensor(directions)


def test_likeness_beyond_the_class_is_a_difference_of_two_means() -> None:
    # images to the photo: 1 and .8, mean .9; class to the photo: .6 and 0, mean .3
    found = likeness_beyond_class(rows(ACROSS, STEEP), rows(SLANTED, UP), rows(ACROSS))
    assert found == pytest.approx(0.9 - 0.3)


def test_images_like_the_class_have_no_likeness_beyond_it() -> None:
    assert likeness_beyond_class(rows(SLANTED, UP), rows(UP, SLANTED), rows(ACROSS, UP)) == pytest.approx(0)


def test_a_class_nearer_than_the_subject_is_negative() -> None:
    assert likeness_beyond_class(rows(UP), rows(ACROSS), rows(ACROSS)) == pytest.approx(-1)


def test_without_class_images_nothing_is_said_beyond_them() -> None:
    assert likeness_beyond_class(rows(UP), NOTHING, rows(UP)) is None
    assert likeness_beyond_class(rows(UP), rows(UP), NOTHING) is None


def test_an_image_is_identified_by_what_it_is_nearer_to() -> None:
    # photo UP, class ACROSS. SLANTED: .8 to the photo, .6 to the class; STEEP the other way round.
    assert identified(rows(SLANTED, STEEP), rows(UP), [rows(ACROSS)]) == [True, False]


def test_the_mean_over_photos_decides_not_the_nearest_one() -> None:
    # SLANTED to UP .8 and ACROSS .6, mean .7; to the rival STEEP .96. [-.6, .8] to them .8 and -.6, mean .1; to STEEP 0
    assert identified(rows(SLANTED, [-0.6, 0.8]), rows(UP, ACROSS), [rows(STEEP)]) == [False, True]
    # SLANTED to the rivals ACROSS and -ACROSS together: .6 and -.6, mean 0; to the photo STEEP .96
    assert identified(rows(SLANTED), rows(STEEP), [rows(ACROSS, [-1.0, 0.0])]) == [True]


def test_one_nearer_rival_of_several_is_enough() -> None:
    assert identified(rows(SLANTED), rows(UP), [rows(ACROSS), rows(STEEP)]) == [False]
    assert identified(rows(SLANTED), rows(UP), [rows(ACROSS), NOTHING]) == [True]


def test_a_tie_is_not_identified() -> None:
    assert identified(rows(SLANTED), rows(UP), [rows(UP)]) == [False]


def test_nothing_to_tell_apart_is_none() -> None:
    assert identified(rows(UP), rows(UP), [NOTHING]) is None
    assert identified(rows(UP), NOTHING, [rows(UP)]) is None
    assert identified(NOTHING, rows(UP), [rows(UP)]) == []


def test_photos_are_held_against_their_own_kind_without_themselves() -> None:
    # UP to SLANTED and ACROSS: .8 and 0, mean .4, to the rival STEEP .6; ACROSS to the others 0 and .6, mean .3, rival
    # .8; SLANTED to the others .8 and .6, mean .7, rival .96. Against [-1, 0]: 0, -1 and -.6.
    photos = rows(UP, ACROSS, SLANTED)
    assert photos_identified(photos, [rows(STEEP)]) == [False, False, False]
    assert photos_identified(photos, [rows([-1.0, 0.0])]) == [True, True, True]
    assert photos_identified(rows(UP), [rows(STEEP)]) is None
    assert photos_identified(photos, []) is None


def test_a_scene_is_right_where_its_own_text_is_the_nearest() -> None:
    texts = torch.eye(3)
    images = torch.tensor([[0.8, 0.6, 0.0], [0.8, 0.6, 0.0], [0.0, 0.6, 0.8]])
    assert scenes_right(images, texts, [0, 1, 2]) == [True, False, True]


def test_two_scenes_are_too_few_to_ask() -> None:
    assert scenes_right(rows(UP), rows(UP, ACROSS), [0]) is None


def test_every_image_was_asked_for_by_one_scene() -> None:
    with pytest.raises(ValueError, match="2 images, but 1"):
        scenes_right(torch.eye(3)[:2], torch.eye(3), [0])


def test_a_copy_is_nearer_to_a_photo_than_any_two_photos_are() -> None:
    # the nearest two of the photos are UP and SLANTED: .8. [.28, .96] is .936 from SLANTED, STEEP .96; ACROSS .6
    photos = rows(UP, SLANTED)
    assert copied(rows([0.28, 0.96], STEEP, ACROSS), photos) == [True, True, False]


def test_being_nearer_than_the_photos_are_on_average_is_no_copy() -> None:
    # photos among themselves: .8, 0 and .6, mean .47. [-.6, .8] is .8 from UP: as near as the nearest pair, no nearer.
    assert copied(rows([-0.6, 0.8]), rows(UP, SLANTED, ACROSS)) == [False]


def test_one_photo_says_nothing_of_copies() -> None:
    assert copied(rows(UP), rows(UP)) is None


def test_a_share_of_nothing_is_none() -> None:
    assert share([True, False, True, True]) == 0.75
    assert share([]) is None
    assert share(None) is None
