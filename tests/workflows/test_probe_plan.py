"""When a run is probed: settled from its settings alone, within the budget."""

from __future__ import annotations

from typing import Any

import pytest

from dbcli.project.profiles import Profile, load_profile, resolve, shipped_profiles
from dbcli.workflows.probe_plan import pictures_a_probe, plan_probes, too_dear


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
    pictures = len(found.steps) * pictures_a_probe(one, subjects=2, classes=1, seeds=found.seeds)
    # Two rows a step at four passes each; twenty passes and four for decoding a picture.
    assert pictures * 24 <= 0.1 * 1000 * 2 * 4


def test_a_set_is_each_subject_as_trained_and_in_each_scene_and_each_class() -> None:
    assert pictures_a_probe(Profile(), subjects=2, classes=1, seeds=3) == 3 * (2 * (1 + 3) + 1)


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


def test_a_probe_that_measured_too_dear_is_left_out_and_the_last_is_kept_room_for() -> None:
    facts = {"last": 100, "step_seconds": 1.0, "budget": 0.15}
    assert too_dear(50, spent=0.0, dearest=None, **facts) is None
    # 5 + 2 x 5 = 15 s of 15 s; then 5.1 + 10.2 s.
    assert too_dear(50, spent=5.0, dearest=5.0, **facts) is None
    assert too_dear(50, spent=5.1, dearest=5.1, **facts) is not None
    assert too_dear(100, spent=5.1, dearest=5.1, **facts) is None
