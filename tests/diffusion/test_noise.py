"""Random numbers depend on their counters alone."""

from __future__ import annotations

import torch

from dbcli.diffusion.noise import normal_rows, permutation_of, seed_for, timestep_rows


def test_a_row_is_the_same_in_any_company() -> None:
    alone = normal_rows((2, 3), 7, "noise", 5, [1])
    together = normal_rows((2, 3), 7, "noise", 5, [0, 1, 2])
    assert torch.equal(alone[0], together[1])


def test_every_counter_matters() -> None:
    seeds = {seed_for(*key) for key in [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]}
    assert len(seeds) == 5


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = normal_rows((4,), 0, "noise", 0, [0])
    torch.manual_seed(2)
    assert torch.equal(first, normal_rows((4,), 0, "noise", 0, [0]))
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())


def test_timesteps_cover_their_range() -> None:
    found = torch.cat([timestep_rows(10, 0, step, [0, 1]) for step in range(100)])
    assert set(found.tolist()) == set(range(10))


def test_a_permutation_holds_everything_once() -> None:
    assert sorted(permutation_of(9, 0, "photos", 3)) == list(range(9))
    assert permutation_of(9, 0, "photos", 3) != permutation_of(9, 0, "photos", 4)
