"""Scores against numbers worked out by hand and against loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch

from dbcli.metrics.scores import (
    closest_pair,
    diversity,
    mean_matched_cosine,
    mean_pairwise_cosine,
    mean_pairwise_within,
)

ACROSS, UP, SLANTED = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]


def test_mean_pairwise_cosine_takes_every_pair() -> None:
    # cosines: across with across 1, with slanted .6; up with across 0, with slanted .8
    found = mean_pairwise_cosine(torch.tensor([ACROSS, UP]), torch.tensor([ACROSS, SLANTED]))
    assert found == pytest.approx((1 + 0.6 + 0 + 0.8) / 4)


def test_within_leaves_out_a_row_with_itself() -> None:
    found = mean_pairwise_within(torch.tensor([ACROSS, UP, SLANTED]))
    assert found == pytest.approx((0 + 0.6 + 0.8) / 3)


def test_one_photo_alone_has_no_real_real_value() -> None:
    assert mean_pairwise_within(torch.tensor([ACROSS])) is None
    assert diversity(torch.tensor([ACROSS])) is None


def test_nothing_to_compare_is_none() -> None:
    assert mean_pairwise_cosine(torch.zeros(0, 2), torch.tensor([UP])) is None
    assert mean_matched_cosine(torch.zeros(0, 2), torch.zeros(0, 2)) is None
    assert closest_pair(torch.zeros(0, 2), torch.tensor([UP])) is None


def test_matched_cosine_pairs_row_by_row() -> None:
    found = mean_matched_cosine(torch.tensor([ACROSS, UP]), torch.tensor([SLANTED, SLANTED]))
    assert found == pytest.approx((0.6 + 0.8) / 2)


def test_a_list_of_texts_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="one text feature per image"):
        mean_matched_cosine(torch.tensor([ACROSS, UP]), torch.tensor([SLANTED]))


def test_diversity_of_copies_is_zero_and_of_opposites_two() -> None:
    assert diversity(torch.tensor([UP, UP, UP])) == pytest.approx(0)
    assert diversity(torch.tensor([UP, [0.0, -1.0]])) == pytest.approx(2)


def test_closest_pair_names_both_rows() -> None:
    row, column, cosine = closest_pair(torch.tensor([ACROSS, SLANTED]), torch.tensor([[-1.0, 0.0], UP])) or (
        0,
        0,
        0,
    )
    assert (row, column) == (1, 1)
    assert cosine == pytest.approx(0.8)


def test_features_of_two_encoders_do_not_mix() -> None:
    with pytest.raises(ValueError, match="features must be"):
        mean_pairwise_cosine(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(("many", "few"), [(1, 1), (7, 3), (2, 11)])
def test_all_pairs_equal_a_double_loop(many: int, few: int) -> None:
    generator = torch.Generator().manual_seed(many)
    a, b = (torch.nn.functional.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (many, few))
    pairs = [math.fsum(x * y for x, y in zip(left, right, strict=True)) for left in a.tolist() for right in b.tolist()]
    assert mean_pairwise_cosine(a, b) == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)
