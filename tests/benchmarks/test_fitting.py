"""What fits is told from two phases and a card's memory; the recipes are those of the ladder."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from dbcli.workflows.memory.ladder import LADDER


@pytest.fixture(scope="module")
def fitting(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("fitting")


@pytest.mark.parametrize(("base", "profiles"), [("sdxl", {"sdxl-full", "sdxl-lora"}), ("sd-v1-4", {"full", "lora"})])
def test_the_recipes_are_the_rungs_with_the_profiles_that_auto_takes(
    fitting: ModuleType, base: str, profiles: set[str]
) -> None:
    found = dict(fitting.recipes(base))
    assert {name.split("`")[1] for name in found} == profiles
    methods = {rung.name: rung.method for rung in LADDER}
    assert all(profile.method == methods[name.partition(" (")[0]] for name, profile in found.items())
    last = found[f"LoRA, 4-bit base offloaded (`{'sdxl-lora' if base == 'sdxl' else 'lora'}`)"]
    assert (last.lora.base, last.lora.offload) == ("nf4", True)


def test_a_card_has_gibibytes_less_what_the_driver_takes_and_what_stays_free(fitting: ModuleType) -> None:
    # 8 GiB are 8.59 GB; less 0.6 are 7.99, of which 7.61 may be planned with.
    assert fitting.fits(7.6, 8) and not fitting.fits(7.62, 8)


def test_the_larger_phase_decides_and_auto_takes_the_first_that_fits(fitting: ModuleType) -> None:
    lines = fitting.table("base", [("big", 9.0, 20.0), ("small", 9.0, 1.0)]).splitlines()
    assert lines[2:] == [
        "| big | 9.0 GB | 20.0 GB | – | – | – | yes |",
        "| small | 9.0 GB | 1.0 GB | – | yes | yes | yes |",
        "| **auto** | | | nothing | small | small | big |",
    ]
