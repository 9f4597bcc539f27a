"""Micro-batches of one size each: which rows are in them, how often each photo comes, and what a resume changes."""

from __future__ import annotations

from collections import Counter

import pytest

from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.row_groups import RowGroups

# Five photos: 0 and 1 have size 0, 2 and 3 size 1, 4 size 2. Of the class images 5 to 7 have size 0, 8 to 10 size 1, 11
# and 12 size 2; the last of each size is of the second sentence.
SIZES = [0, 0, 1, 1, 2, 0, 0, 0, 1, 1, 1, 2, 2]
PHOTOS = [[0], [1], [2], [3], [4]]
DOG = SubjectData(
    PHOTOS,
    [SentenceData([0] * 5, [0] * 5, [5, 6, 8, 9, 11], 2), SentenceData([1] * 5, [1] * 5, [7, 10, 12], 3)],
)
CAT = SubjectData([[4], [0]], [SentenceData([4, 4], [4, 4])])


def sampler(batch_size: int, subjects: tuple[SubjectData, ...] = (DOG,), seed: int = 3) -> BatchSampler:
    return BatchSampler(subjects, batch_size=batch_size, seed=seed, sizes=SIZES)


def test_a_row_waits_until_its_group_is_whole_and_rows_of_a_size_keep_their_order() -> None:
    sizes = [0, 1, 0, 1, 1, 0, 0, 1]
    groups = RowGroups(lambda row: sizes[row], batch_size=2, sizes=2)
    assert [list(groups.rows(step)) for step in range(4)] == [[0, 2], [1, 3], [5, 6], [4, 7]]


def test_with_one_size_a_group_is_the_next_rows() -> None:
    assert list(RowGroups(lambda row: 0, batch_size=3, sizes=1).rows(4)) == [12, 13, 14]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_a_batch_never_mixes_sizes_class_images_included(batch_size: int) -> None:
    plan = sampler(batch_size, (DOG, CAT))
    for step in range(60):
        rows = plan.subject_rows(step) + plan.prior_rows(step)
        assert len({SIZES[row.image] for row in rows}) == 1
        assert len(plan.subject_rows(step)) == batch_size


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_each_photo_comes_equally_often_up_to_a_batch(batch_size: int) -> None:
    plan, steps = sampler(batch_size), 200
    seen = Counter(row.image for step in range(steps) for row in plan.subject_rows(step))
    assert set(seen) == set(range(5))
    # Of each of three sizes less than a batch waits, and an epoch may be under way.
    assert max(seen.values()) - min(seen.values()) <= batch_size


def test_with_one_row_a_batch_the_photos_come_as_without_sizes() -> None:
    plain = BatchSampler([DOG], batch_size=1, seed=3)
    assert [sampler(1).subject_rows(step)[0].image for step in range(40)] == [
        plain.subject_rows(step)[0].image for step in range(40)
    ]


def test_images_that_all_have_one_size_come_as_without_sizes() -> None:
    one = BatchSampler([DOG, CAT], batch_size=3, seed=3, sizes=[0] * len(SIZES))
    plain = BatchSampler([DOG, CAT], batch_size=3, seed=3)
    for step in range(30):
        assert one.subject_rows(step) == plain.subject_rows(step)
        assert one.prior_rows(step) == plain.prior_rows(step)


def test_a_step_is_the_same_whether_the_steps_before_were_made_or_not() -> None:
    walked = sampler(2, (DOG, CAT))
    for step in range(50):
        walked.subject_rows(step)
        walked.prior_rows(step)
    for step in (50, 17, 3, 80):
        jumped = sampler(2, (DOG, CAT))
        assert walked.subject_rows(step) == jumped.subject_rows(step)
        assert walked.prior_rows(step) == jumped.prior_rows(step)


def test_a_class_row_has_the_photo_s_sentence_and_size_and_each_class_image_comes_once_an_epoch() -> None:
    plan = sampler(1)
    rows = [(plan.subject_rows(step)[0], plan.prior_rows(step)[0]) for step in range(400)]
    assert {(photo.prompt, of_class.prompt) for photo, of_class in rows} == {(0, 2), (1, 3)}
    for prompt, images in ((2, [5, 6]), (2, [8, 9]), (2, [11]), (3, [7]), (3, [10]), (3, [12])):
        shown = [of_class for _, of_class in rows if of_class.image in images]
        assert all(row.prompt == prompt for row in shown)
        whole = len(shown) // len(images)
        epochs = [sorted(row.image for row in shown if row.epoch == epoch) for epoch in range(whole)]
        assert epochs == [images] * whole
    by_sentence = Counter(photo.prompt for photo, _ in rows)
    # Each size goes through the sentences by itself: of three sizes one row each may be left over.
    assert abs(by_sentence[0] - by_sentence[1]) <= 3


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_row_asks_for_an_epoch_beyond_those_that_were_counted(batch_size: int) -> None:
    plan = sampler(batch_size, (DOG, CAT))
    for steps in (1, 5, 40):
        dealt = [row for step in range(steps) for row in plan.prior_rows(step)]
        counted = plan.class_epochs(steps * batch_size)[0]
        for place, prompt in enumerate((2, 3)):
            assert max((row.epoch + 1 for row in dealt if row.prompt == prompt), default=0) <= counted[place]
