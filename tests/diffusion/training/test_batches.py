"""Which pictures a step sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData

DOG = SubjectData([[0], [1], [2]], [SentenceData([0, 0, 1], [0, 0, 1], [3, 4, 5, 6], class_prompt=2)])
CAT = SubjectData([[7], [8]], [SentenceData([3, 3], [3, 3], [9, 10], class_prompt=4)])
# Two sentences, each with class images of its own, and captions.
FOX = SubjectData(
    [[0], [1]],
    [SentenceData([0, 0], [1, 2], [2, 3], class_prompt=6), SentenceData([3, 3], [4, 5], [4, 5, 6], class_prompt=7)],
)


def test_every_photo_is_seen_once_a_round() -> None:
    plan = BatchSampler([DOG], batch_size=1, seed=0)
    for start in (0, 3, 6):
        assert sorted(plan.subject_rows(step)[0].image for step in range(start, start + 3)) == [0, 1, 2]


def test_a_photo_keeps_its_own_prompt() -> None:
    plan = BatchSampler([DOG], batch_size=3, seed=0)
    assert {row.image: row.prompt for row in plan.subject_rows(0)} == {0: 0, 1: 0, 2: 1}


def test_each_photo_row_has_a_class_row_of_its_own_class() -> None:
    plan = BatchSampler([DOG, CAT], batch_size=2, seed=0)
    for step in range(4):
        assert [row.prompt for row in plan.prior_rows(step)] == [2, 4]


def test_subjects_take_turns_whatever_their_number_of_photos() -> None:
    plan = BatchSampler([DOG, CAT], batch_size=1, seed=0)
    seen = Counter("dog" if plan.subject_rows(step)[0].image < 7 else "cat" for step in range(40))
    assert seen == {"dog": 20, "cat": 20}


def test_without_class_images_there_are_no_prior_rows() -> None:
    plan = BatchSampler([SubjectData([[0]], [SentenceData([0], [0])])], batch_size=2, seed=0)
    assert plan.prior_rows(0) == []


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    walked, jumped = BatchSampler([DOG, CAT], batch_size=2, seed=3), BatchSampler([DOG, CAT], batch_size=2, seed=3)
    for step in range(30):
        walked.subject_rows(step)
        walked.prior_rows(step)
    assert walked.subject_rows(30) == jumped.subject_rows(30)
    assert walked.prior_rows(30) == jumped.prior_rows(30)


def test_all_views_of_a_photo_come_up() -> None:
    plan = BatchSampler([SubjectData([[0, 1, 2]], [SentenceData([0], [0])])], batch_size=1, seed=0)
    assert {plan.subject_rows(step)[0].image for step in range(40)} == {0, 1, 2}


def test_a_subject_without_photos_is_refused() -> None:
    with pytest.raises(ValueError, match="photo"):
        BatchSampler([SubjectData([], [SentenceData([], [])])], batch_size=1, seed=0)


def test_a_subject_without_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="sentence"):
        BatchSampler([SubjectData([[0]], [])], batch_size=1, seed=0)


def test_every_sentence_comes_once_a_round_and_the_class_row_has_the_same() -> None:
    plan = BatchSampler([FOX], batch_size=1, seed=0, caption_share=0.0)
    taught = [(plan.subject_rows(step)[0].prompt, plan.prior_rows(step)[0].prompt) for step in range(40)]
    assert set(taught) == {(0, 6), (3, 7)}
    assert all(len(set(taught[start : start + 2])) == 2 for start in range(0, 40, 2))


def test_each_sentence_shows_its_own_class_images_once_an_epoch() -> None:
    plan = BatchSampler([FOX], batch_size=1, seed=0)
    rows = [plan.prior_rows(step)[0] for step in range(24)]
    first, second = ([row for row in rows if row.prompt == prompt] for prompt in (6, 7))
    assert [sorted(row.image for row in first[start : start + 2]) for start in (0, 2, 4)] == [[2, 3]] * 3
    assert [sorted(row.image for row in second[start : start + 3]) for start in (0, 3, 6)] == [[4, 5, 6]] * 3
    assert [row.epoch for row in second[:7]] == [0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.75, 270, 330), (1.0, 400, 400)])
def test_captions_come_in_their_share_of_the_rows_and_are_the_photo_s_own(share: float, fewest: int, most: int) -> None:
    plan = BatchSampler([FOX], batch_size=2, seed=0, caption_share=share)
    rows = [row for step in range(200) for row in plan.subject_rows(step)]
    captioned = [row for row in rows if row.prompt not in (0, 3)]
    assert fewest <= len(captioned) <= most
    assert {(row.image, row.prompt) for row in captioned} <= {(0, 1), (1, 2), (0, 4), (1, 5)}


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.25, 75, 125)])
def test_the_empty_prompt_takes_its_share_of_the_class_rows_and_changes_no_image(
    share: float, fewest: int, most: int
) -> None:
    (sentence,) = CAT.sentences
    cat = replace(CAT, sentences=[replace(sentence, empty_prompt=9)])
    plan = BatchSampler([cat], batch_size=2, seed=0, empty_share=share)
    without = BatchSampler([CAT], batch_size=2, seed=0)
    rows, usual = ([row for step in range(200) for row in one.prior_rows(step)] for one in (plan, without))
    assert fewest <= sum(row.prompt == 9 for row in rows) <= most
    assert {row.prompt for row in rows} <= {4, 9}
    assert [replace(row, prompt=4) for row in rows] == usual
    assert [plan.subject_rows(step) for step in range(9)] == [without.subject_rows(step) for step in range(9)]


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.25, 75, 125)])
def test_photos_are_taught_with_the_empty_prompt_in_their_share_and_nothing_else_changes(
    share: float, fewest: int, most: int
) -> None:
    plan = BatchSampler([FOX], batch_size=2, seed=0, caption_share=0.5, photo_empty_share=share, empty_prompt=9)
    without = BatchSampler([FOX], batch_size=2, seed=0, caption_share=0.5)
    rows, usual = ([row for step in range(200) for row in one.subject_rows(step)] for one in (plan, without))
    assert fewest <= sum(row.prompt == 9 for row in rows) <= most
    assert all(row in (before, replace(before, prompt=9)) for row, before in zip(rows, usual, strict=True))
    assert [plan.prior_rows(step) for step in range(9)] == [without.prior_rows(step) for step in range(9)]


def test_a_prompt_with_orders_is_taught_in_all_of_them_alike_often() -> None:
    orders = {1: [20, 21, 22, 23], 4: [24]}
    plan = BatchSampler([FOX], batch_size=2, seed=0, orders=orders)
    without = BatchSampler([FOX], batch_size=2, seed=0)
    pairs = [
        (before.prompt, row.prompt)
        for step in range(200)
        for row, before in zip(plan.subject_rows(step), without.subject_rows(step), strict=True)
    ]
    assert {pair for pair in pairs if pair[0] not in orders} == {(2, 2), (5, 5)}
    assert {after for before, after in pairs if before == 4} == {24}
    counts = Counter(after for before, after in pairs if before == 1)
    assert counts.keys() == {20, 21, 22, 23} and max(counts.values()) - min(counts.values()) < 20


def test_sentences_and_captions_of_a_step_do_not_depend_on_the_batch_or_the_steps_before() -> None:
    how = {"caption_share": 0.5, "photo_empty_share": 0.2, "empty_prompt": 9, "orders": {1: [20, 21], 3: [22, 23]}}
    one = BatchSampler([FOX, CAT], batch_size=1, seed=3, **how)
    four = BatchSampler([FOX, CAT], batch_size=4, seed=3, **how)
    for step in (9, 0, 4):
        alone = [one.subject_rows(row) + one.prior_rows(row) for row in range(4 * step, 4 * step + 4)]
        assert four.subject_rows(step) + four.prior_rows(step) == [own[0] for own in alone] + [own[1] for own in alone]


def test_the_earlier_subject_gets_its_share_of_the_rows_spread_evenly() -> None:
    plan = BatchSampler([DOG, CAT], batch_size=1, seed=0, rehearsed=1, rehearsal_share=0.25)
    shown = ["cat" if plan.subject_rows(step)[0].image >= 7 else "dog" for step in range(8)]
    assert shown == ["dog", "dog", "dog", "cat"] * 2
    assert [plan.prior_rows(step)[0].prompt for step in (0, 3)] == [2, 4]


def test_earlier_subjects_take_turns_among_themselves_and_lose_no_photo() -> None:
    plan = BatchSampler([DOG, CAT, CAT], batch_size=2, seed=0, rehearsed=2, rehearsal_share=0.5)
    places = [plan.subject_of(count) for count in range(12)]
    assert places == [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1), (0, 3), (2, 1), (0, 4), (1, 2), (0, 5), (2, 2)]


def test_a_share_of_nothing_deals_as_if_the_earlier_subjects_were_not_there() -> None:
    alone = BatchSampler([DOG], batch_size=2, seed=3)
    beside = BatchSampler([DOG, CAT], batch_size=2, seed=3, rehearsed=1, rehearsal_share=0.0)
    assert [alone.subject_rows(step) for step in range(9)] == [beside.subject_rows(step) for step in range(9)]


@pytest.mark.parametrize("share", [0.1, 0.3, 1 / 3, 0.7, 0.9])
def test_after_any_row_the_share_is_kept_up_to_one_row(share: float) -> None:
    plan = BatchSampler([DOG, CAT], batch_size=1, seed=0, rehearsed=1, rehearsal_share=share)
    rehearsed = 0
    for count in range(400):
        rehearsed += plan.subject_of(count)[0]
        assert abs(rehearsed - share * (count + 1)) < 1 + 1e-9


@pytest.mark.parametrize(("rehearsed", "share"), [(2, 0.5), (1, 1.0), (1, -0.1)])
def test_a_plan_that_teaches_nothing_new_is_refused(rehearsed: int, share: float) -> None:
    with pytest.raises(ValueError, match="taught"):
        BatchSampler([DOG, CAT], batch_size=1, seed=0, rehearsed=rehearsed, rehearsal_share=share)
