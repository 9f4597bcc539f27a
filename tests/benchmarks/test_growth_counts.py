"""Growth with what a project holds: counts as they are asked for, exponents by hand, and the rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def growth(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("growth_counts")


def test_an_exponent_is_that_of_the_count(growth: ModuleType) -> None:
    assert growth.exponent((10, 3.0), (40, 12.0)) == pytest.approx(1.0)
    assert growth.exponent((10, 3.0), (40, 48.0)) == pytest.approx(2.0)
    assert growth.exponent((10, 3.0), (40, 3.0)) == 0.0


def test_a_row_has_every_count_and_the_exponent_from_the_first_to_the_last(growth: ModuleType) -> None:
    def took(seconds: float) -> object:
        return growth.Timing(99.0, seconds, 2_000_000_000)

    found = {"cells": {100: {"sweep": took(40.0)}, 25: {"sweep": took(10.0)}, 50: {"sweep": took(99.0)}}}
    last = growth.table(found).splitlines()[-1]
    assert last == "| cells | `sweep` | 25: 10.0, 2.00 · 50: 99.0, 2.00 · 100: 40.0, 2.00 | 1.00 |"


def test_counts_are_read_in_order_and_refused_by_name(growth: ModuleType) -> None:
    assert growth.wanted(["photos=50,5", "class images=1,2,3"]) == {"photos": [5, 50], "class images": [1, 2, 3]}
    for word in ("cats=1,2", "photos=5", "photos=5,5"):
        with pytest.raises(SystemExit, match="two counts or more"):
            growth.wanted([word])
