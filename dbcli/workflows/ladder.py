"""The ladder of memory: recipes from the best to the smallest, and the step from one down to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dbcli.project.profile_settings import Profile
from dbcli.project.profiles import load_profile, resolve
from dbcli.workflows.settings import default_profile


@dataclass(frozen=True)
class Rung:
    """A way to train: what it is called, its method, and the settings that make it smaller than the one above."""

    name: str
    method: str
    settings: Mapping[str, Any]
    needs: str | None = None


LADDER = (
    Rung("full", "full", {}),
    Rung("full, activations recomputed", "full", {"train.gradient_checkpointing": True}),
    Rung(
        "full, 8-bit optimiser",
        "full",
        {"train.gradient_checkpointing": True, "train.optimizer": "adamw8bit"},
        needs="bitsandbytes",
    ),
    Rung("LoRA", "lora", {}),
    Rung("LoRA, activations recomputed", "lora", {"train.gradient_checkpointing": True}),
)


def rungs() -> list[Rung]:
    """The rungs that this installation can stand on, the largest first."""
    return [rung for rung in LADDER if rung.needs is None or find_spec(rung.needs) is not None]


def rung_of(profile: Profile) -> Rung | None:
    """The lowest rung whose settings a profile has; None for a method that is on no ladder."""
    values = profile.model_dump()
    fitting = [rung for rung in rungs() if rung.method == profile.method and _has(values, rung.settings)]
    return fitting[-1] if fitting else None


def below(profile: Profile, *, other_method: bool) -> Rung | None:
    """The next smaller rung; one of another method only where `other_method` allows it."""
    here, ladder = rung_of(profile), rungs()
    if here is None or ladder.index(here) + 1 == len(ladder):
        return None
    rung = ladder[ladder.index(here) + 1]
    return rung if rung.method == profile.method or other_method else None


def on_rung(profile: Profile, rung: Rung, base: str) -> Profile:
    """The same recipe on another rung; a rung of another method brings its method's rates and steps.

    Everything else, class images, photos and drawing, stays.
    """
    values = profile.model_dump()
    if rung.method != profile.method:
        made_for_it = resolve([("", load_profile(default_profile(base, rung.method)))]).model_dump()
        kept = ("seed", "device", "precision", "checkpoint_every", "keep_checkpoints", "preview_every")
        values["train"] = made_for_it["train"] | {key: values["train"][key] for key in kept}
        values["method"], values["lora"] = rung.method, made_for_it["lora"]
    for key, value in rung.settings.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return Profile.model_validate(values)


def _has(values: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(values[section][name] == value for key, value in settings.items() for section, name in [key.split(".")])
