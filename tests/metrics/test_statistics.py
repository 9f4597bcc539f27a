"""Intervals: known answers, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from dbcli.metrics.statistics import Cell, bootstrap_interval, bounded_interval, student_quantile

TRUTH = 0.6


def cells_of(values: np.ndarray) -> list[Cell]:
    return [
        Cell(f"subject {row}", f"prompt {column}", float(values[row, column]))
        for row in range(values.shape[0])
        for column in range(values.shape[1])
    ]


@pytest.mark.parametrize(
    ("subjects", "prompts", "subject_spread", "prompt_spread", "noise"),
    [
        (1, 25, 0.0, 0.1, 0.1),
        (6, 10, 0.1, 0.05, 0.1),
        (20, 10, 0.05, 0.0, 0.2),
        (30, 25, 0.1, 0.05, 0.1),
    ],
)
def test_intervals_hold_the_truth_95_times_in_100(
    subjects: int, prompts: int, subject_spread: float, prompt_spread: float, noise: float
) -> None:
    random = np.random.default_rng(1)
    trials, hits = 800, 0
    for trial in range(trials):
        values = (
            TRUTH
            + subject_spread * random.normal(size=(subjects, 1))
            + prompt_spread * random.normal(size=(1, prompts))
            + noise * random.normal(size=(subjects, prompts))
        )
        found = bootstrap_interval(cells_of(values), seed=trial, resamples=400)
        hits += found.low <= TRUTH <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_two_subjects_have_an_interval_that_holds_for_these_two() -> None:
    random = np.random.default_rng(2)
    trials, hits, widest = 800, 0, 0.0
    for trial in range(trials):
        # Far apart, so that an interval over subjects would be as wide as the scale itself.
        own = np.array([[-0.2], [0.2]])
        values = TRUTH + own + 0.05 * random.normal(size=(1, 25)) + 0.1 * random.normal(size=(2, 25))
        found = bootstrap_interval(cells_of(values), seed=trial, resamples=400)
        hits += found.low <= TRUTH <= found.high
        widest = max(widest, found.high - found.low)
    assert 0.93 <= hits / trials <= 0.97
    assert widest < 0.15


@pytest.mark.parametrize("other", ["x", "y"])
def test_two_subjects_with_a_score_each_have_no_interval(other: str) -> None:
    found = bootstrap_interval([Cell("a", "x", 0.5), Cell("b", other, 0.7)])
    assert (found.value, found.low, found.high) == (pytest.approx(0.6), None, None)


def test_the_mean_weighs_pictures_within_and_not_between_subjects() -> None:
    cells = [Cell("a", "x", 0.2, 1), Cell("a", "y", 0.8, 3), Cell("b", "x", 0.5, 100)]
    # subject a: (0.2 + 3 * 0.8) / 4 = 0.65; subject b: 0.5
    assert bootstrap_interval(cells).value == pytest.approx((0.65 + 0.5) / 2)


def test_one_score_has_no_interval() -> None:
    found = bootstrap_interval([Cell("a", "x", 0.5)])
    assert (found.value, found.low, found.high) == (0.5, None, None)


def test_equal_scores_have_an_interval_of_no_width() -> None:
    found = bootstrap_interval(cells_of(np.full((3, 4), 0.5)))
    assert (found.low, found.high) == (0.5, 0.5)


def test_the_order_of_cells_changes_nothing() -> None:
    cells = cells_of(np.random.default_rng(0).normal(size=(4, 5)))
    assert bootstrap_interval(cells, seed=3) == bootstrap_interval(cells[::-1], seed=3)


def test_two_subjects_that_agree_by_chance_are_not_called_sure() -> None:
    values = np.array([[0.2, 0.8, 0.5], [0.8, 0.2, 0.5]])
    found = bootstrap_interval(cells_of(values))
    assert found.high - found.low > 0.3


def test_a_score_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two scores"):
        bootstrap_interval([Cell("a", "x", 0.5), Cell("a", "x", 0.6)])


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([])


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.7062), (4, 2.77645), (29, 2.04523), (1e4, 1.96020)])
def test_student_quantiles_are_those_of_the_tables(degrees: float, expected: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(expected, rel=2e-5)


def test_a_share_is_averaged_over_seeds_and_pairs_and_its_interval_stays_a_share() -> None:
    shares = [Cell("dog and cat", "0", 1.0), Cell("dog and cat", "1", 0.5), Cell("vase and can", "0", 0.0)]
    found = bounded_interval(shares)
    assert found["value"] == pytest.approx((0.75 + 0.0) / 2)
    assert bootstrap_interval(shares).low < 0  # type: ignore[operator]
    assert (found["low"], found["high"]) == (0.0, 1.0)
