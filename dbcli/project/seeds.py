"""The one rule for seeds: what a seed may be, and what -1 means.

torch's CPU generator takes 32 bits of a seed. Beyond them different seeds would give the same noise under different
names, so that they end there.
"""

import secrets
from collections.abc import Callable

from dbcli.errors import UsageError

SEEDS = 2**32
LAST_SEED = SEEDS - 1
RANDOM = -1
RULE = f"a seed is a whole number from 0 to {LAST_SEED}, or {RANDOM} for a random one"


def is_seed(value: object) -> bool:
    """Whether a value can be given as a seed: a whole number in the range, or -1."""
    return isinstance(value, int) and not isinstance(value, bool) and RANDOM <= value <= LAST_SEED


def random_seed(count: int = 1) -> int:
    """A random first seed of `count` in a row, from 0 to the last seed."""
    return secrets.randbelow(max(1, SEEDS - count + 1))


def first_seed(seed: int, *, count: int = 1, option: str = "--seed") -> int:
    """Return the first of `count` seeds in a row: the one given, or a random one for -1.

    Raises UsageError, naming `option`, for a seed out of range or a row that would run past the last seed.
    """
    if not is_seed(seed):
        raise UsageError(f"{option} {seed} is out of range: {RULE}.", hint=f"for example {option} {seed % SEEDS}")
    if seed == RANDOM:
        return random_seed(count)
    if seed + count > SEEDS:
        raise UsageError(
            f"{option} {seed} is too close to the last seed, {LAST_SEED}, for {count} images, whose seeds count up.",
            hint=f"{option} {max(0, SEEDS - count)} or less",
        )
    return seed


def next_seed(seed: int, step: int) -> int:
    """The seed `step` after another; after the last comes 0."""
    return (seed + step) % SEEDS


def first_of_next(seed: int, count: int) -> int:
    """The first of the `count` seeds after as many that begin with `seed`; 0 where they would run past the last."""
    return seed + count if seed + 2 * count <= SEEDS else 0


class SettledSeed:
    """What -1 means in the settings of one command: one random seed, however often they are resolved."""

    def __init__(self, draw: Callable[[], int] = random_seed) -> None:
        self._draw = draw
        self._seed: int | None = None
        self.is_used = False

    def begin(self, kept: int | None = None) -> None:
        """A new command begins; `kept` is the seed of an earlier one that it goes on with."""
        self._seed, self.is_used = kept, False

    @property
    def value(self) -> int:
        """The random seed of this command."""
        if self._seed is None:
            self._seed = self._draw()
        self.is_used = True
        return self._seed


# Settings are resolved more than once on the way to a run (for the plan, for each rung of an estimate).
settled = SettledSeed()
