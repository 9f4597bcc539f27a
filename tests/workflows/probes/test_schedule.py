"""When a run is probed: settled from its settings alone, within the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import load_profile, resolve, shipped_profiles
from dbcli.workflows.probes.schedule import Cost, images_per_probe, plan_probes, too_dear


def planned(**values: Any) -> list[int]:
    return plan_probes(profile(**values), subjects=1, classes=1).steps


def profile(**values: Any) -> Profile:
    return resolve([("test", {key.replace("__", "."): value for key, value in values.items()})])


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_shipped_profile_has_room_for_a_choice(name: str) -> None:
    found = plan_probes(resolve([(name, load_profile(name))]), subjects=1, classes=1)
    assert len(found.steps) >= 3
    assert found.steps[-1] == resolve([(name, load_profile(name))]).train.steps
    assert found.steps == sorted(set(found.steps))


def test_the_counted_cost_stays_within_the_budget() -> None:
    one = profile(train__steps=1000, train__batch_size=1, probe__budget=0.1)
    found = plan_probes(one, subjects=2, classes=1)
    images = len(found.steps) * images_per_probe(one, subjects=2, classes=1, seeds=found.seeds)
    # Two rows a step at four passes each; twenty passes and four for decoding a picture.
    assert images * 24 <= 0.1 * 1000 * 2 * 4


def test_a_set_is_each_subject_as_trained_and_in_each_scene_and_each_class() -> None:
    assert images_per_probe(Profile(), subjects=2, classes=1, seeds=3) == 3 * (2 * (1 + 3) + 1)


def test_a_short_run_has_no_room_and_says_so() -> None:
    found = plan_probes(profile(train__steps=20), subjects=1, classes=1)
    assert found.steps == []
    assert "20 steps" in found.why


def test_an_interval_that_is_asked_for_is_obeyed_whatever_it_costs() -> None:
    assert planned(train__steps=10, probe__every=4) == [4, 8, 10]
    assert planned(train__steps=8, probe__every=4) == [4, 8]
    assert planned(train__steps=3, probe__every=50) == [3]


def test_stopping_early_wants_more_probes_than_a_choice_does() -> None:
    few, many = planned(train__steps=2000), planned(train__steps=2000, probe__stop="auto")
    assert len(many) > len(few)


def left_out(*, spent: float, usual: float | None, steps: Sequence[int] = (25, 50, 75, 100)) -> list[int]:
    """Which of these probes of a run of 100 steps of a second each are left out, with 15 s for probing."""
    out, since = [], 0
    for place, step in enumerate(steps):
        if too_dear(Cost(spent, usual, 1.0), since=since, remaining=steps[place:], budget=0.15) is None:
            spent, since = spent + (usual or 0.0), step
        else:
            out.append(step)
    return out


def test_before_anything_was_measured_every_probe_is_made() -> None:
    assert left_out(spent=0.0, usual=None) == []


def test_probes_that_fit_are_all_made() -> None:
    assert left_out(spent=0.0, usual=3.75) == []


def test_of_dear_probes_as_many_are_made_as_fit_evenly_and_the_last_among_them() -> None:
    # 15 s hold two of 7 s: after step 50, and after the last.
    assert left_out(spent=0.0, usual=7.0) == [25, 75]
    # One of 8 s: the last.
    assert left_out(spent=0.0, usual=8.0) == [25, 50, 75]


def test_what_would_break_the_budget_is_left_out_even_at_the_end() -> None:
    assert left_out(spent=14.0, usual=2.0) == [25, 50, 75, 100]
    assert left_out(spent=16.0, usual=2.0) == [25, 50, 75, 100]


def test_the_reason_names_the_figures() -> None:
    reason = too_dear(Cost(14.0, 2.0, 1.0), since=0, remaining=[50, 100], budget=0.15)
    assert reason is not None
    assert "15% of 100.0 s" in reason
    assert "0 of the 2" in reason
