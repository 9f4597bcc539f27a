"""The one rule for seeds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dbcli.errors import ConfigError, UsageError
from dbcli.project.seeds import SEEDS, SettledSeed, first_of_next, first_seed, is_seed, next_seed, random_seed
from dbcli.project.settings.profile_settings import FROZEN, Profile
from dbcli.project.settings.profiles import frozen_profile, resolve


@pytest.mark.parametrize("seed", [0, 1, 4294967295])
def test_a_seed_of_32_bits_is_itself(seed: int) -> None:
    assert first_seed(seed) == seed


@pytest.mark.parametrize("seed", [-2, 4294967296, 2**63, 2**64 - 1, 2**64, 10**40])
def test_any_other_seed_is_refused_with_the_range(seed: int) -> None:
    with pytest.raises(UsageError, match="0 to 4294967295") as refused:
        first_seed(seed, option=":seed")
    assert refused.value.exit_code == 2
    assert refused.value.message.startswith(f":seed {seed} ")


def test_seeds_that_count_up_end_at_the_last() -> None:
    assert first_seed(4294967294, count=2) == 4294967294
    with pytest.raises(UsageError) as refused:
        first_seed(4294967295, count=2)
    assert refused.value.hint == "--seed 4294967294 or less"


def test_minus_one_is_random_and_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("secrets.randbelow", lambda below: asked.append(below) or below - 1)
    assert first_seed(-1, count=3) == SEEDS - 3
    assert asked == [SEEDS - 2]
    assert len({random_seed() for _ in range(3)}) == 1


def test_random_seeds_differ() -> None:
    assert len({first_seed(-1) for _ in range(20)}) > 1


def test_after_the_last_seed_comes_the_first() -> None:
    assert [next_seed(SEEDS - 2, step) for step in range(3)] == [SEEDS - 2, SEEDS - 1, 0]


def test_as_many_seeds_again_come_after_those_before_and_begin_anew_where_there_is_no_room() -> None:
    assert [first_of_next(seed, 2) for seed in (7, SEEDS - 4, SEEDS - 3)] == [9, SEEDS - 2, 0]


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -2, 2**32])
def test_what_is_no_seed(value: object) -> None:
    assert not is_seed(value)


@pytest.mark.parametrize("key", ["train.seed", "prior.seed"])
def test_settings_hold_to_the_same_rule(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} \(from --set\): should be a whole number from 0 to 4294967295"):
        resolve([("--set", {key: 2**32})])
    assert resolve([("--set", {key: -1})]) is not None


def test_a_frozen_run_with_a_longer_seed_can_still_be_read() -> None:
    values = {"train": {"seed": 2**33 + 5}}
    assert frozen_profile(values, "run.json").train.seed == 2**33 + 5
    assert Profile.model_validate(values, context=FROZEN).train.seed == 2**33 + 5
    with pytest.raises(ValidationError):
        Profile.model_validate(values)


def test_a_random_seed_is_drawn_once_a_command() -> None:
    drawn = iter([5, 7])
    seed = SettledSeed(lambda: next(drawn))
    assert (seed.value, seed.value) == (5, 5)
    seed.begin()
    assert seed.value == 7
    seed.begin(kept=9)
    assert seed.value == 9
