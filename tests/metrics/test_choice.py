"""The best checkpoint by the stated rule, and when to stop."""

from __future__ import annotations

import pytest

from dbcli.metrics.choice import Probe, paired_noise, pick_checkpoint, should_stop


def test_the_knee_of_the_front_wins() -> None:
    probes = [Probe(100, 0.4, 0.32), Probe(200, 0.6, 0.31), Probe(300, 0.65, 0.27), Probe(400, 0.7, 0.24)]
    # stretched: (0, 1), (.667, .875), (.833, .375), (1, 0)
    found = pick_checkpoint(probes)
    assert found.step == 200
    assert found.front == (100, 200, 300, 400)


def test_a_checkpoint_that_another_beats_on_both_is_not_on_the_front() -> None:
    assert pick_checkpoint([Probe(100, 0.5, 0.3), Probe(200, 0.4, 0.2)]).front == (100,)


def test_copying_is_left_out() -> None:
    found = pick_checkpoint([Probe(100, 0.5, 0.3), Probe(200, 0.9, 0.3, copying=True)])
    assert (found.step, found.front) == (100, (100,))


def test_when_all_copy_the_rule_still_picks_one() -> None:
    found = pick_checkpoint([Probe(100, 0.9, 0.3, copying=True), Probe(200, 0.95, 0.31, copying=True)])
    assert (found.step, found.front) == (200, (200,))


def test_among_equals_the_earlier_step() -> None:
    assert pick_checkpoint([Probe(300, 0.5, 0.3), Probe(100, 0.5, 0.3)]).step == 100


def test_a_front_of_two_has_no_knee_and_the_likeness_decides() -> None:
    assert pick_checkpoint([Probe(100, 0.5, 0.32), Probe(200, 0.7, 0.3)]).step == 200


def test_a_difference_that_is_noise_does_not_outweigh_what_was_learnt() -> None:
    probes = [Probe(100, 0.5, 0.301), Probe(200, 0.6, 0.3005), Probe(300, 0.7, 0.3)]
    # Without noise all three sums are 1, .5 + .5, 1. Stretched over 0.01, editability counts 0.1 at most.
    assert pick_checkpoint(probes, noise=(0.0, 0.01)).step == 300
    # A likeness that differs by chance alone leaves the choice to editability.
    assert pick_checkpoint(probes, noise=(100.0, 0.0)).step == 100


def test_noise_is_the_standard_error_of_paired_differences() -> None:
    # Differences 1 and 3: standard deviation sqrt(2), error sqrt(2) / sqrt(2) = 1.
    assert paired_noise([[0.0, 10.0], [1.0, 13.0]]) == pytest.approx(1.0)
    # A second pair of rows with differences 0 and 0 has none: the root of the mean of 1 and 0.
    assert paired_noise([[0.0, 10.0], [1.0, 13.0], [1.0, 13.0]]) == pytest.approx(0.5**0.5)
    assert paired_noise([[0.1, 0.2]]) == 0.0
    assert paired_noise([[0.1], [0.2]]) == 0.0


def test_no_probes_no_choice() -> None:
    with pytest.raises(ValueError, match="no probe"):
        pick_checkpoint([])


def test_stopping_waits_until_neither_score_improves() -> None:
    rising = [Probe(step, 0.1 * step, 0.3 - 0.01 * step) for step in range(1, 6)]
    assert not should_stop(rising, patience=3)
    still = [*rising, *(Probe(step, 0.4, 0.2) for step in range(6, 9))]
    assert should_stop(still, patience=3)
    assert not should_stop(still, patience=8)


def test_the_first_probe_that_does_not_copy_is_an_improvement() -> None:
    copying = [Probe(step, 0.9, 0.3, copying=True) for step in (1, 2)]
    assert not should_stop([*copying, Probe(3, 0.5, 0.2)], patience=1)
    assert should_stop([*copying, Probe(3, 0.5, 0.2), Probe(4, 0.5, 0.2)], patience=1)


def test_a_rise_that_is_copying_is_no_improvement() -> None:
    probes = [Probe(1, 0.5, 0.3), *(Probe(step, 0.5 + step, 0.2, copying=True) for step in range(2, 5))]
    assert should_stop(probes, patience=3)
