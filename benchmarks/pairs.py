"""Two sides measured in turn: the pairs as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def table(rows: Sequence[dict[str, float]]) -> str:
    """The figures of pairs as Markdown, to three digits, the medians last."""
    keys = list(rows[0])
    medians = {key: statistics.median(row[key] for row in rows) for key in keys}
    lines = ["| pair | " + " | ".join(keys) + " |", "|" + "---|" * (len(keys) + 1)]
    for name, row in [*((str(number), row) for number, row in enumerate(rows, 1)), ("median", medians)]:
        lines.append(f"| {name} | " + " | ".join(f"{row[key]:.3g}" for key in keys) + " |")
    return "\n".join(lines)
