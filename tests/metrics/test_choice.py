"""The best checkpoint by the stated rule, and when to stop."""

from __future__ import annotations

import pytest

from dbcli.metrics.choice import Probe, pick_checkpoint, should_stop


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
    assert (found.step, found.left_out) == (100, (200,))


def test_when_all_copy_the_rule_still_picks_one() -> None:
    found = pick_checkpoint([Probe(100, 0.9, 0.3, copying=True), Probe(200, 0.95, 0.31, copying=True)])
    assert (found.step, found.left_out) == (200, ())


def test_among_equals_the_earlier_step() -> None:
    assert pick_checkpoint([Probe(300, 0.5, 0.3), Probe(100, 0.5, 0.3)]).step == 100


def test_no_probes_no_choice() -> None:
    with pytest.raises(ValueError, match="no probe"):
        pick_checkpoint([])


def test_stopping_waits_until_neither_score_improves() -> None:
    rising = [Probe(step, 0.1 * step, 0.3 - 0.01 * step) for step in range(1, 6)]
    assert not should_stop(rising, patience=3)
    still = [*rising, *(Probe(step, 0.4, 0.2) for step in range(6, 9))]
    assert should_stop(still, patience=3)
    assert not should_stop(still, patience=8)


def test_a_rise_that_is_copying_is_no_improvement() -> None:
    probes = [Probe(1, 0.5, 0.3), *(Probe(step, 0.5 + step, 0.2, copying=True) for step in range(2, 5))]
    assert should_stop(probes, patience=3)
