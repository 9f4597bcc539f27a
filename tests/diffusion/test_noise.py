"""Random numbers depend on their counters alone."""

from __future__ import annotations

import torch

from dbcli.diffusion.families.process import Diffusion, level_rows
from dbcli.diffusion.noise import normal_rows, permutation_of, seed_for
from dbcli.project.seeds import LAST_SEED


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
    found = torch.cat([level_rows(Diffusion(torch.linspace(0.9, 0.1, 10)), 0, step, [0, 1]) for step in range(100)])
    assert set(found.tolist()) == set(range(10))


def test_a_permutation_holds_everything_once() -> None:
    assert sorted(permutation_of(9, 0, "photos", 3)) == list(range(9))
    assert permutation_of(9, 0, "photos", 3) != permutation_of(9, 0, "photos", 4)


def test_every_seed_in_the_range_has_noise_of_its_own_and_none_beyond_it() -> None:
    def noise(seed: int) -> torch.Tensor:
        return torch.randn(16, generator=torch.Generator("cpu").manual_seed(seed))

    seeds = [0, 1, 5, 2**16, 2**31 - 1, 2**31, 2**31 + 5, LAST_SEED - 1, LAST_SEED]
    assert len({tuple(noise(seed).tolist()) for seed in seeds}) == len(seeds)
    # Why the range ends where it does: torch takes the lowest 32 bits.
    assert torch.equal(noise(5), noise(LAST_SEED + 1 + 5))
