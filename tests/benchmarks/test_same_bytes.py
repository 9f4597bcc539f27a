"""Two checkouts held against each other: a file that differs or is missing is told."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_each_file_of_either_checkout_has_a_verdict(script: Callable[[str], ModuleType]) -> None:
    before = {"runs/a.safetensors": "1" * 64, "runs/b.png": "2" * 64, "runs/c.png": "3" * 64}
    after = {"runs/a.safetensors": "1" * 64, "runs/b.png": "4" * 64, "runs/d.png": "5" * 64}
    assert script("same_bytes").compared(before, after) == [
        ("same", "1" * 16, "1" * 16, "runs/a.safetensors"),
        ("differs", "2" * 16, "4" * 16, "runs/b.png"),
        ("differs", "3" * 16, "missing", "runs/c.png"),
        ("differs", "missing", "5" * 16, "runs/d.png"),
    ]
