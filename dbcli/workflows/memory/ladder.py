"""The ladder of memory: recipes from the best to the smallest, and the step from one down to the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dbcli.project.settings.combinations import contradictions, share_rates
from dbcli.project.settings.profile_settings import FROZEN, Profile
from dbcli.project.settings.profiles import resolve
from dbcli.workflows.setup.effective_settings import default_profile, for_subjects


@dataclass(frozen=True)
class Rung:
    """A way to train: what it is called, its method, and the settings that make it smaller than the one above.

    `needs` names the package without which it cannot be stood on, `instead_of` the one that offers a better rung;
    one that is `for_gpus` is no smaller anywhere else. One `for_its_method` is taken only where the method is to stay:
    otherwise the next method's first rung is the better way to be as small.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    needs: str | None = None
    instead_of: str | None = None
    for_gpus: bool = False
    for_its_method: bool = False


RECOMPUTED = {"train.gradient_checkpointing": True}
EIGHT_BIT = RECOMPUTED | {"train.optimizer": "adamw8bit"}
# A weight that moves in the backward pass leaves no moment for a norm of all gradients.
FUSED = {"train.fused_backward": True, "train.gradient_clip": 0.0}
# Half of each weight and of each moment.
HALVED = {"train.optimizer": "adamw16bit", "train.precision": "bf16", "train.stochastic_rounding": True}
# Who chose one that holds less than a rung's keeps it there. Adafactor holds a fifth of the 8-bit one's on Stable
# Diffusion XL, and on v1, whose convolutions its means are large for, as much.
HOLD_LESS = {"adamw8bit": ("adafactor",), "adamw16bit": ("adafactor", "adamw8bit")}
# What a method's own profile has no say in.
OF_NO_METHOD = ("seed", "device", "precision", "checkpoint_every", "keep_checkpoints", "preview_every")
LADDER = (
    Rung("full", "full", {}),
    Rung("full, activations recomputed", "full", RECOMPUTED),
    Rung("full, 8-bit optimiser", "full", EIGHT_BIT, needs="bitsandbytes"),
    # Below an 8-bit optimiser only another 8-bit one is smaller: AdamW's moments take more than all gradients.
    Rung("full, fused backward", "full", EIGHT_BIT | FUSED, needs="bitsandbytes"),
    Rung("full, fused backward", "full", RECOMPUTED | FUSED, instead_of="bitsandbytes"),
    Rung("full, weights in bf16", "full", RECOMPUTED | FUSED | HALVED, for_its_method=True),
    Rung("LoRA", "lora", {}),
    Rung("LoRA, activations recomputed", "lora", RECOMPUTED),
    Rung("LoRA, 8-bit base", "lora", RECOMPUTED | {"lora.base": "int8"}),
    Rung("LoRA, 4-bit base", "lora", RECOMPUTED | {"lora.base": "nf4"}),
    Rung("LoRA, 4-bit base offloaded", "lora", RECOMPUTED | {"lora.base": "nf4", "lora.offload": True}, for_gpus=True),
)


def rungs(processes: int = 1) -> list[Rung]:
    """The rungs that this installation and so many processes can stand on, the largest first."""
    here = [rung for rung in LADDER if _is_here(rung.needs, True) and _is_here(rung.instead_of, False)]
    if processes > 1:
        here = [rung for rung in here if "train.fused_backward" not in rung.settings]
    return here if has_gpu() else [rung for rung in here if not rung.for_gpus]


def has_gpu() -> bool:
    """Whether there is memory here beside the machine's own."""
    from dbcli.diffusion.machine import has_surely_no_gpu

    if has_surely_no_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def _is_here(package: str | None, wanted: bool) -> bool:
    return package is None or (find_spec(package) is not None) is wanted


def rung_of(profile: Profile) -> Rung | None:
    """The lowest rung whose settings a profile has; None for a method that is on no ladder."""
    values = profile.model_dump()
    fitting = [rung for rung in rungs() if rung.method == profile.method and _has(values, rung.settings)]
    return fitting[-1] if fitting else None


def below(
    profile: Profile, base: str, *, other_method: bool, subjects: int = 1, processes: int = 1
) -> tuple[Rung, Profile] | None:
    """The next smaller rung and the same recipe on it; one of another method only where `other_method` allows it.

    A rung that the recipe rules out, as a sum over several passes does the fused backward pass, is left out, and so are
    one that changes nothing of it and one with another optimiser than its rate is for. Where another method is allowed
    so is one that is for its method. `subjects` are how many the run teaches, whose steps those of another method are.
    Several `processes` sum their gradients after the backward pass: one that updates weights on its way is left out.
    """
    here, ladder = rung_of(profile), rungs()
    if here is None:
        return None
    for rung in ladder[ladder.index(here) + 1 :]:
        if rung.method != profile.method and not other_method:
            return None
        if rung.for_its_method and other_method:
            continue
        smaller = on_rung(profile, rung, base, subjects)
        if smaller.train.fused_backward and processes > 1:
            continue
        has_own_rate = smaller.train.learning_rate != profile.train.learning_rate
        is_followed = has_own_rate or share_rates(profile.train.optimizer, smaller.train.optimizer)
        if is_followed and smaller.model_dump() != profile.model_dump() and not contradictions(smaller):
            return rung, smaller
    return None


def on_rung(profile: Profile, rung: Rung, base: str, subjects: int = 1) -> Profile:
    """The same recipe on another rung; a rung of another method brings its method's rates, and steps for all subjects.

    Everything else, class images, photos and drawing, stays, and so does what is not as the first method's own profile
    has it: somebody chose that. An optimiser that holds less than the rung's stays as well.
    """
    values = profile.model_dump()
    if rung.method != profile.method:
        usual, made_for_it = (_as_shipped(base, method, subjects) for method in (profile.method, rung.method))
        made_small_by = [item for one in LADDER if one.method == profile.method for item in one.settings.items()]
        for section in ("train", "lora"):
            chosen = {
                name: value
                for name, value in values[section].items()
                if value != usual[section][name] and (f"{section}.{name}", value) not in made_small_by
            }
            values[section] = made_for_it[section] | chosen
        values["train"] |= {key: profile.train.model_dump()[key] for key in OF_NO_METHOD}
        values["method"] = rung.method
    for key, value in rung.settings.items():
        section, _, name = key.partition(".")
        if key != "train.optimizer" or values[section][name] not in HOLD_LESS[value]:
            values[section][name] = value
    return Profile.model_validate(values, context=FROZEN)


def _as_shipped(base: str, method: str, subjects: int) -> dict[str, Any]:
    return resolve([("", for_subjects(default_profile(base, method), subjects))]).model_dump()


def _has(values: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(values[section][name] == value for key, value in settings.items() for section, name in [key.split(".")])
