"""How far back the weights of a run that diverged were good."""

from __future__ import annotations

import pytest

from dbcli.project.settings.profiles import load_profile, resolve
from dbcli.workflows.training.divergence import last_sound_step, least_rate_scale, recorded_errors


@pytest.mark.parametrize(
    ("errors", "step"),
    [
        ({}, 0),  # the first step of all: only the base is left
        ({1: 0.4, 2: 0.6}, 2),  # the next loss was not finite, whoever is at fault
        ({1: 0.4, 2: 3720.0, 3: 5000.0}, 0),  # step 1 left the weights that step 2 measured
        ({1: 0.4, 2: 0.5, 3: 11.0}, 1),
        ({7: 0.5, 8: 0.4, 9: 40.0}, 7),
        ({1: 50.0}, 0),
    ],
)
def test_the_weights_gone_back_to_are_those_whose_next_error_was_ordinary(errors: dict[int, float], step: int) -> None:
    assert last_sound_step(errors) == step


def test_a_step_made_again_counts_with_its_newest_error_and_later_ones_not_at_all() -> None:
    events = [
        {"step": 1, "loss": 1.0, "subject_loss": 0.4, "prior_loss": 0.6},
        {"step": 2, "loss": 9.0, "subject_loss": 8.0, "prior_loss": 1.0},
        {"event": "resumed", "step": 1},
        {"step": 2, "loss": 0.5, "subject_loss": 0.5, "prior_loss": None},
        {"step": 3, "loss": None, "subject_loss": None, "prior_loss": None},
    ]
    assert recorded_errors(events, 2) == {1: 0.6, 2: 0.5}


@pytest.mark.parametrize(("rate", "scale"), [(3e-4, 1 / 64), (1e-5, 1 / 64), (3e-2, 1 / 960), (0.0, 1 / 64)])
def test_rates_are_halved_six_times_below_the_usual_one(rate: float, scale: float) -> None:
    profile = resolve([("tiny", load_profile("tiny")), ("test", {"train.learning_rate": rate})])
    assert least_rate_scale("tiny", profile) == pytest.approx(scale)
