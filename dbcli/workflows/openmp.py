"""How often the threads of a computation spin before they block on one another."""

import os

SETTING = "GOMP_SPINCOUNT"
# Waking a thread takes longer than most of what it waits for: blocking at once made a step 1.6 times as slow, and more
# spins won nothing (docs/performance.md).
SPINS = "10000"


def set_spin_count() -> None:
    """Tells GNU OpenMP, before it is loaded, how often a thread spins before it blocks, unless a person has."""
    os.environ.setdefault(SETTING, SPINS)
