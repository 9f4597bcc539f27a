"""What recipes cost is kept under everything that it depends on."""

from __future__ import annotations

import pytest

from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import ProjectSettings
from dbcli.workflows.memory import known_costs
from dbcli.workflows.memory.known_costs import Cost, key_of, known_cost, remember_cost

COST = Cost("a processor", 100, 300, {"train": 7, "encode": 5}, 0.25, 20.0, (4, 8, 512))
SETTINGS = ProjectSettings(base="mine", base_hash=64 * "a")
PROFILE = Profile.model_validate({"method": "full"})


def test_a_kept_cost_is_found_again() -> None:
    assert known_cost("some-key") is None
    remember_cost("some-key", COST)
    assert known_cost("some-key") == COST and known_cost("another") is None


def test_nothing_is_kept_for_a_base_whose_hash_is_not_known() -> None:
    assert key_of(ProjectSettings(base="mine"), PROFILE, 5, "cpu") is None
    assert key_of(ProjectSettings(base="tiny"), PROFILE, 5, "cpu") is not None
    remember_cost(None, COST)
    assert known_cost(None) is None


@pytest.mark.parametrize(
    ("settings", "profile", "photos", "device"),
    [
        (ProjectSettings(base="mine", base_hash=64 * "b"), PROFILE, 5, "cpu"),
        (ProjectSettings(base="mine", base_hash=64 * "a", prediction_type="v_prediction"), PROFILE, 5, "cpu"),
        (SETTINGS, Profile.model_validate({"method": "full", "train": {"batch_size": 2}}), 5, "cpu"),
        (SETTINGS, PROFILE, 6, "cpu"),
        (SETTINGS, PROFILE, 5, "cuda"),
    ],
    ids=["base", "prediction", "recipe", "photos", "device"],
)
def test_what_a_cost_depends_on_is_in_its_key(
    settings: ProjectSettings, profile: Profile, photos: int, device: str
) -> None:
    key = key_of(SETTINGS, PROFILE, 5, "cpu")
    assert key == key_of(SETTINGS, PROFILE, 5, "cpu")
    assert key_of(settings, profile, photos, device) != key


def test_threads_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        keys.add(key_of(SETTINGS, PROFILE, 5, "cpu"))
    assert len(keys) == 2


def test_a_damaged_file_is_no_cost() -> None:
    remember_cost("damaged", COST)
    known_costs._file("damaged").write_text('{"device": "x"}', encoding="utf-8")
    assert known_cost("damaged") is None
