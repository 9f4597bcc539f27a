"""Random numbers depend on their counters alone."""

from __future__ import annotations

import torch

from dbcli.diffusion.families.process import Diffusion, level_rows
from dbcli.diffusion.noise import multires_rows, multires_variance, normal_rows, permutation_of, seed_for
from dbcli.diffusion.training.objective import Objective
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


def test_noise_of_several_sizes_is_the_sum_of_its_levels() -> None:
    # Four values wide: one level of two values, enlarged to 1, 3/4 1/4, 1/4 3/4, 1 of them, and one of a single value.
    two = normal_rows((1, 1, 2), 7, "noise of level 1", 5, [3])[0, 0, 0]
    one = normal_rows((1, 1, 1), 7, "noise of level 2", 5, [3])[0, 0, 0, 0]
    shares = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    found = multires_rows((1, 1, 4), 7, 5, [3], 0.5)
    torch.testing.assert_close(found[0, 0, 0], 0.5 * (shares @ two) + 0.25 * one)
    # 1 + 0.25 * (1, 10/16, 10/16, 1) + 0.0625
    expected = torch.tensor([[1.3125, 1.21875, 1.21875, 1.3125]])
    torch.testing.assert_close(multires_variance(1, 4, 0.5), expected)


def test_noise_of_several_sizes_varies_by_one_at_every_place_and_more_as_a_whole() -> None:
    objective = Objective(Diffusion(torch.linspace(0.9, 0.1, 10)), multires_noise=0.5)
    rows, plain = objective.noise((2, 6, 5), 0, 0, range(3000)), normal_rows((2, 6, 5), 0, "noise", 0, range(3000))
    # Five standard deviations of a variance of 6,000 numbers: 0.09.
    assert (rows.var(0) - 1).abs().max().item() < 0.15
    assert abs(rows.var().item() - 1) < 0.02
    assert rows.mean((2, 3)).var().item() > 3 * plain.mean((2, 3)).var().item()


def test_noise_of_several_sizes_depends_on_its_row_alone() -> None:
    objective = Objective(Diffusion(torch.linspace(0.9, 0.1, 10)), multires_noise=0.3)
    alone, together = objective.noise((2, 4, 4), 7, 5, [1]), objective.noise((2, 4, 4), 7, 5, [0, 1])
    assert torch.equal(alone[0], together[1])
    assert not torch.equal(alone, objective.noise((2, 4, 4), 7, 6, [1]))


def test_without_a_share_noise_has_one_size() -> None:
    plain = Objective(Diffusion(torch.linspace(0.9, 0.1, 10))).noise((2, 4, 4), 7, 5, [0, 1])
    assert torch.equal(plain, normal_rows((2, 4, 4), 7, "noise", 5, [0, 1]))
