"""How the threads of a computation wait for one another: by turning, or by falling asleep."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOAD = Path("/proc/loadavg")
SETTING = "GOMP_SPINCOUNT"
# Waking a thread takes longer than most of what it waits for: where nobody else computes, turning made a step 1.6 times
# as fast. Where others do, whoever turns keeps them, and with them the thread that is waited for, off the processor:
# now and then a step took four times as long.
QUIET, BUSY = "10000", "1000"
LOOKS, BETWEEN_SECONDS = 3, 0.002


def settle_waiting() -> None:
    """Tells GNU OpenMP, before it is loaded, how often a thread turns before it sleeps, unless a person has."""
    if SETTING not in os.environ:
        os.environ[SETTING] = turns_before_sleep()


def turns_before_sleep(load: Path = LOAD) -> str:
    """How often, by whether another program computes now."""
    try:
        return QUIET if _runs_alone(load) else BUSY
    except (OSError, ValueError, IndexError):
        return BUSY


def _runs_alone(load: Path) -> bool:
    """Whether at one of a few looks no thread but this one has a processor or waits for one."""
    for look in range(LOOKS):
        if look:
            time.sleep(BETWEEN_SECONDS)
        # "0.20 0.18 0.12 1/80 11206": the fourth is those that run, this one among them, of all.
        if int(load.read_text().split()[3].partition("/")[0]) <= 1:
            return True
    return False
