"""What a recipe will take of this machine, in a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.workflows.memory.estimate import MemoryEstimate


def estimate_document(estimate: MemoryEstimate) -> dict[str, object]:
    """The estimates as JSON: bytes and seconds."""
    return {
        "device": estimate.device,
        "free_bytes": estimate.free_bytes,
        "fits": None if estimate.fitting is None else estimate.fitting.rung,
        "recipes": [
            {
                "recipe": one.rung,
                "peak_memory_bytes": one.peak_bytes,
                "phases_bytes": one.phases,
                "step_seconds": one.step_seconds,
                "seconds": one.seconds,
                "fits": one.fits,
            }
            for one in estimate.recipes
        ],
    }


def show_estimate(screen: Screen, estimate: MemoryEstimate) -> None:
    """The estimates as a table, and the first recipe that fits."""
    rows = [
        (one.rung, f"{one.peak_bytes / 1e9:.2f} GB", _duration(one.seconds), "yes" if one.fits else "no")
        for one in estimate.recipes
    ]
    free = f"{estimate.device}, {estimate.free_bytes / 1e9:.1f} GB free"
    columns = (
        Column("recipe", least=16, wraps=True),
        Column("memory at its peak", right=True),
        Column("time, about", right=True),
        "fits",
    )
    screen.table(free, columns, rows)
    fitting = estimate.fitting
    if fitting is None:
        screen.warn("No recipe fits this machine's free memory; a smaller images.resolution takes less.")
    elif fitting is not estimate.recipes[0]:
        screen.line(f"The first that fits: {fitting.rung}; --profile auto takes the first of the whole ladder.")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
