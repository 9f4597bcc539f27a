"""Recognition against numbers worked out by hand: features are directions in a plane or in space."""

from __future__ import annotations

import pytest
import torch

from dbcli.metrics.recognition import (
    class_drift,
    class_to_tell_from,
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


def test_the_class_has_gone_a_part_of_the_subjects_way() -> None:
    # to the photos ACROSS and STEEP, .8 to each other: the base's UP 0 and .6, mean .3; the run's SLANTED .6 and .96,
    # mean .78; the subject's STEEP .8 and 1, mean .9. The way is .6 of .5, and .48 of it the class has gone too.
    found = class_drift(rows(STEEP), rows(SLANTED), rows(UP), rows(ACROSS, STEEP))
    assert found == {
        "moved": 1,
        "class_moved": 1,
        "reach": pytest.approx(0.6 / 0.5),
        "share": pytest.approx(0.48 / 0.6),
    }
    kept = class_drift(rows(STEEP), rows(UP), rows(UP), rows(ACROSS, STEEP))
    assert kept == {"moved": 1, "class_moved": 0, "reach": pytest.approx(1.2), "share": 0}


def test_images_that_moved_are_nearer_to_the_photos_than_the_bases_class_was() -> None:
    # to ACROSS and STEEP in the mean: STEEP .9, SLANTED .78, UP .3; the base's class SLANTED
    found = class_drift(rows(STEEP, UP), rows(SLANTED), rows(SLANTED), rows(ACROSS, STEEP))
    # the subject's mean of .6 is below the class's .78: one image in two is nearer, the way leads away
    assert found == {"moved": 0.5, "class_moved": 0, "reach": pytest.approx(-0.18 / 0.02, rel=1e-4), "share": None}


def test_a_subject_that_came_no_nearer_has_no_way_to_go_along() -> None:
    assert class_drift(rows(UP), rows(SLANTED), rows(UP), rows(ACROSS, STEEP)) == {
        "moved": 0,
        "class_moved": 1,
        "reach": 0,
        "share": None,
    }
    assert class_drift(rows(ACROSS), NOTHING, rows(UP), rows(ACROSS, STEEP)) is None
    assert class_drift(rows(ACROSS), rows(UP), rows(UP), rows(ACROSS)) is None


def test_without_class_images_nothing_is_said_beyond_them() -> None:
    assert likeness_beyond_class(rows(UP), NOTHING, rows(UP)) is None
    assert likeness_beyond_class(rows(UP), rows(UP), NOTHING) is None


def test_an_image_is_identified_where_it_is_nearer_to_the_photos_than_every_image_of_the_class_is() -> None:
    # to the photo UP: the class's ACROSS 0 and STEEP .6; SLANTED .8, [.96, .28] only .28
    assert identified(rows(SLANTED, [0.96, 0.28]), rows(UP), rows(ACROSS, STEEP), []) == [True, False]
    assert identified(rows(SLANTED, [0.96, 0.28]), rows(UP), rows(ACROSS), []) == [True, True]


def test_of_many_images_of_the_class_one_in_five_may_be_nearer() -> None:
    # to UP: five of the class 0 and one .96, above SLANTED's .8; with five in all the nearest one decides
    odd = [0.28, 0.96]
    assert identified(rows(SLANTED), rows(UP), rows(*[ACROSS] * 5, odd), []) == [True]
    assert identified(rows(SLANTED), rows(UP), rows(*[ACROSS] * 4, odd), []) == [False]


def test_the_class_is_the_bases_and_the_runs_only_where_there_is_none_of_the_base() -> None:
    base, run = rows([0.0, 1.0]), rows([1.0, 0.0])
    assert class_to_tell_from(base, run) is base
    assert class_to_tell_from(torch.zeros(0, 2), run) is run
    # the run's class is as near to the photo as anything can be; the base's is not
    image, photo = rows([0.8, 0.6]), rows([1.0, 0.0])
    assert identified(image, photo, class_to_tell_from(base, run), []) == [True]
    assert identified(image, photo, run, []) == [False]


def test_and_nearer_to_them_than_to_another_subjects_photos() -> None:
    # SLANTED: .8 to the photo, .6 to the other subject's ACROSS, .96 to its STEEP
    assert identified(rows(SLANTED), rows(UP), NOTHING, [rows(ACROSS)]) == [True]
    assert identified(rows(SLANTED), rows(UP), NOTHING, [rows(ACROSS), rows(STEEP)]) == [False]
    assert identified(rows(SLANTED), rows(UP), rows(ACROSS), [rows(STEEP)]) == [False]


def test_likeness_is_the_mean_over_all_photos() -> None:
    # SLANTED to UP and ACROSS .8 and .6, mean .7; the class's STEEP .6 and .8, mean .7 too: a tie; UP's mean is .5
    assert identified(rows(SLANTED, UP), rows(UP, ACROSS), rows(STEEP), []) == [False, False]
    assert identified(rows(SLANTED, UP), rows(UP, ACROSS), rows([0.0, -1.0]), []) == [True, True]


def test_a_tie_is_not_identified() -> None:
    assert identified(rows(SLANTED), rows(UP), rows(SLANTED), []) == [False]
    assert identified(rows(SLANTED), rows(UP), NOTHING, [rows(UP)]) == [False]


def test_nothing_to_tell_apart_is_none() -> None:
    assert identified(rows(UP), rows(UP), NOTHING, [NOTHING]) is None
    assert identified(rows(UP), NOTHING, rows(UP), []) is None
    assert identified(NOTHING, rows(UP), rows(UP), []) == []


def test_photos_are_held_against_their_own_kind_without_themselves() -> None:
    # UP to SLANTED and ACROSS .8 and 0, mean .4, where the class's STEEP has .96 and .8; ACROSS to UP and SLANTED 0 and
    # .6, mean .3, STEEP .6 and .96; SLANTED to UP and ACROSS .8 and .6, mean .7, STEEP .6 and .8, mean .7, a tie
    photos = rows(UP, ACROSS, SLANTED)
    assert photos_identified(photos, rows(STEEP), []) == [False, False, False]
    assert photos_identified(photos, rows([-1.0, 0.0]), []) == [True, True, True]
    assert photos_identified(rows(UP), rows(STEEP), []) is None
    assert photos_identified(photos, NOTHING, []) is None


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
