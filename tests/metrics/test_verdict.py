"""Verdicts in words from counts, and counts from a record of scores."""

from __future__ import annotations

import pytest

from dbcli.metrics.verdict import Counts, counts_of, verdict_of


def said(counts: Counts, steps: int | None = None) -> str:
    found = verdict_of("rex", "dog", counts, steps=steps)
    assert found is not None
    return found.text


def test_a_subject_that_is_learnt_with_its_class_kept() -> None:
    assert said(Counts(24, 19, 24, 21, gain=0.6, moved=0.7, drift=0.1, copies=0.0)) == (
        "Learnt: 19 of 24 images of rex show your photos' dog rather than any other; "
        "21 of 24 are where the prompt says; 'a dog' still draws others."
    )


def test_one_that_is_not_says_what_to_try() -> None:
    assert said(Counts(24, 2, 20, 18, gain=0.05), steps=250) == (
        "Not learnt yet: 2 of 24 images of rex show your photos' dog rather than any other; "
        "18 of 20 are where the prompt says. Try more steps (--steps 400), or a class noun that the base draws well."
    )


def test_where_neither_subject_nor_scenes_are_left_the_rate_was_too_high() -> None:
    assert said(Counts(15, 3, 15, 9, gain=0.01), steps=150) == (
        "Overtrained: 3 of 15 images of rex show your photos' dog rather than any other; "
        "9 of 15 are where the prompt says. The base is spoilt: try a lower rate, or fewer steps (--steps 90)."
    )
    assert "Not learnt yet" in said(Counts(15, 3, 15, 10, gain=0.01), steps=150)


def test_a_subject_whose_scenes_are_not_all_there_is_told_of_guidance() -> None:
    assert "another seed" in said(Counts(24, 24, 20, 15, gain=0.6))
    assert "another seed" not in said(Counts(24, 24, 20, 16, gain=0.6))


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        (Counts(24, 12), "learnt"),  # half
        (Counts(24, 11), "partly learnt"),
        (Counts(24, 8), "partly learnt"),  # one third
        (Counts(24, 7), "not learnt yet"),
        (Counts(24, 24, gain=0.09), "partly learnt"),  # nearer than the class, and yet far from the photos
        (Counts(24, 12, gain=0.09), "partly learnt"),
        (Counts(24, 11, gain=0.09), "not learnt yet"),
        (Counts(24, 11, gain=0.1), "partly learnt"),
        # both began where the base's class is, whatever the run's class has done since
        (Counts(24, 12, gain=0.09, reach=0.1), "learnt"),
        (Counts(24, 12, gain=0.9, reach=0.09), "partly learnt"),
        (Counts(24, 24, 24, 16, gain=0.9), "learnt"),
        (Counts(24, 24, 24, 15, gain=0.9), "overtrained"),  # the prompt no longer decides where
        (Counts(24, 8, 24, 15, gain=0.9), "overtrained"),  # more steps would not bring the scenes back
        (Counts(24, 7, 24, 16, gain=0.9), "not learnt yet"),
        (Counts(24, 7, 24, 15, gain=0.9), "overtrained"),  # neither subject nor scenes
        (Counts(24, 24, gain=0.9, copies=0.5), "overtrained"),
        (Counts(24, 24, 20, 20, gain=0.9, copies=0.5), "learnt"),  # in other places than the photos: poses
        (Counts(24, 24, 20, 20, gain=0.9, moved=0.9, drift=0.7), "overtrained"),
        # the class has become the subject, so that nothing is left to tell it from
        (Counts(24, 2, 20, 20, gain=0.1, moved=0.9, drift=0.9), "overtrained"),
        (Counts(24, 2, 20, 20, gain=0.1, moved=0.9, drift=0.9, reach=0.1), "overtrained"),
        # as a mean of few images, of which most still show others, it has not
        (Counts(24, 24, 20, 20, moved=0.9, drift=0.9, reach=0.3, class_moved=0.66), "learnt"),
        (Counts(24, 24, 20, 20, moved=0.9, drift=0.9, reach=0.3, class_moved=0.67), "overtrained"),
        # ahead of the subject, the class is what training has reached first: the word comes later
        (Counts(24, 24, 20, 20, gain=-0.1, moved=0.9, drift=1.1, reach=0.3), "partly learnt"),
        (Counts(24, 7, 20, 20, gain=-0.1, moved=0.9, drift=1.1, reach=0.3), "not learnt yet"),
        (Counts(24, 24, 20, 20, gain=0.0, moved=0.9, drift=1.09, reach=0.3), "overtrained"),
        # hardly on the way, a class cannot have come along
        (Counts(24, 2, 20, 20, gain=0.1, moved=0.9, drift=0.9, reach=0.09), "not learnt yet"),
        (Counts(24, 5, 20, 20, moved=0.66, drift=0.9), "not learnt yet"),
    ],
)
def test_the_state_follows_from_the_counts(counts: Counts, state: str) -> None:
    found = verdict_of("rex", "dog", counts)
    assert found is not None
    assert found.state == state
    assert found.short == f"{state} {counts.identified}/24"


def test_what_became_of_the_class_is_told_in_three_degrees() -> None:
    assert "'a dog' still draws others" in said(Counts(9, 9, moved=0.67, drift=0.33))
    assert "'a dog' leans towards rex" in said(Counts(9, 9, moved=0.67, drift=0.5))
    assert "'a dog' has become rex. Try fewer steps (--steps 150)" in said(
        Counts(9, 9, moved=0.67, drift=0.67), steps=250
    )
    assert "'a dog' leans towards rex" in said(Counts(9, 9, moved=0.67, drift=0.67, class_moved=0.5))
    assert "'a dog'" not in said(Counts(9, 9))
    assert "'a dog'" not in said(Counts(9, 9, moved=0.66, drift=0.9))


def test_an_article_fits_its_noun() -> None:
    found = verdict_of("granny", "apple", Counts(9, 9, moved=0.9, drift=0.0))
    assert found is not None and "'an apple' still draws others" in found.text


def test_copies_are_told() -> None:
    assert "75% copy a photo" in said(Counts(8, 8, copies=0.75))


def test_few_images_are_no_ground_for_a_verdict() -> None:
    assert verdict_of("rex", "dog", Counts(7, 7)) is None


def record(*shares: tuple[int, float | None, float | None]) -> dict:
    """A subject's record with prompts of so many images, their share identified and their share in place."""
    prompts = [
        {"images": [f"{number}.png" for number in range(count)], "scores": {"identified": one, "scene": two}}
        for count, one, two in shares
    ]
    scores = {"beyond_class": {"value": 0.2}, "copies": {"value": 0.1}}
    return {
        "prompts": prompts,
        "scores": scores,
        "real": {"beyond_class": 0.5},
        "class_drift": {"moved": 0.6, "class_moved": 0.3, "reach": 0.4, "share": 0.2},
    }


def test_counts_are_taken_from_the_prompts_that_know_them() -> None:
    # 3 of 4 and 1 of 4 identified, of the latter 2 in place; the third changes the look
    found = counts_of(record((4, 0.75, None), (4, 0.25, 0.5), (4, None, None)))
    assert found == Counts(
        8, 4, 4, 2, gain=pytest.approx(0.4), moved=0.6, drift=0.2, copies=0.1, reach=0.4, class_moved=0.3
    )


def test_without_rivals_nothing_is_counted() -> None:
    assert counts_of(record((4, None, 1.0))) is None
