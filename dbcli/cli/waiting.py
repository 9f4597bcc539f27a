"""How the threads of a computation wait for one another: by turning, or by falling asleep."""

from __future__ import annotations

import time
from pathlib import Path

LOAD = Path("/proc/loadavg")
# A tenth of a millisecond and a hundredth. Waking a thread takes longer than most of what it waits for: where nobody
# else computes, turning makes a step up to 1.7 times as fast. Where others do, whoever turns keeps them, and with
# them the thread that is waited for, off the processor: now and then a step takes four times as long.
QUIET, BUSY = "10000", "1000"
LOOKS, BETWEEN_SECONDS = 3, 0.002


def turns_before_sleep(load: Path = LOAD) -> str:
    """What GNU OpenMP's GOMP_SPINCOUNT should be, by whether another program computes now."""
    try:
        others = _others_running(load)
    except (OSError, ValueError, IndexError):
        return BUSY
    return BUSY if others else QUIET


def _others_running(load: Path) -> int:
    """How many threads beside this one have a processor or wait for one; the least of a few looks."""
    found = []
    for _ in range(LOOKS):
        # "0.20 0.18 0.12 1/80 11206": the fourth is those that run, this one among them, of all.
        found.append(int(load.read_text().split()[3].partition("/")[0]) - 1)
        time.sleep(BETWEEN_SECONDS)
    return max(0, min(found))
