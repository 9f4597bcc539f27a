"""Whether a scheduler's settings are of a process that can be trained here, and mean something."""

import math
from collections.abc import Mapping
from typing import Any

from dbcli.errors import UnsafeFile, UnsupportedFile
from dbcli.hints import ONLY_BASES

TRAIN_TIMESTEPS = 1000
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
# Schedulers by the start of their class, and what a UNet under them predicts instead of noise or v.
_OTHER_PREDICTIONS = (
    ("FlowMatch", "a flow-matching model"),
    ("EDM", "an EDM model"),
    ("CosineDPM", "an EDM model"),
)


# What flow-matching schedulers can be told beside their shift, none of which is used here.
_FLOW_SETTINGS = (
    "use_dynamic_shifting",
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)
MOST_SHIFT = 100


def check_diffusion(config: Mapping[str, Any], where: str) -> None:
    """Raises UnsupportedFile for another process than diffusion on 1000 timesteps, UnsafeFile for nonsense."""
    name = str(config.get("_class_name") or "")
    what = next((what for start, what in _OTHER_PREDICTIONS if name.startswith(start)), None)
    if what is not None:
        raise UnsupportedFile(f"{where} is {what} ({name}).", hint=ONLY_BASES)
    steps = config.get("num_train_timesteps", TRAIN_TIMESTEPS)
    if steps != TRAIN_TIMESTEPS:
        raise UnsupportedFile(
            f"{where} (scheduler): num_train_timesteps is {steps!r}, not {TRAIN_TIMESTEPS}.", hint=ONLY_BASES
        )
    schedule = config.get("beta_schedule", "linear")
    if schedule not in BETA_SCHEDULES:
        raise UnsupportedFile(
            f"{where} (scheduler): beta_schedule is {schedule!r}, none of {', '.join(BETA_SCHEDULES)}.", hint=ONLY_BASES
        )
    betas = config.get("trained_betas")
    are_betas = isinstance(betas, list) and len(betas) == TRAIN_TIMESTEPS and all(map(_is_beta, betas))
    if betas is not None and not are_betas:
        raise UnsafeFile(f"{where} (scheduler): trained_betas are not {TRAIN_TIMESTEPS} numbers between 0 and 1.")
    for key in ("beta_start", "beta_end"):
        if key in config and not _is_beta(config[key]):
            raise UnsafeFile(f"{where} (scheduler): {key} is {config[key]!r}, not a number between 0 and 1.")


def check_flow(config: Mapping[str, Any], where: str) -> None:
    """Raises UnsupportedFile for another process than flow matching with one shift, UnsafeFile for no sound shift."""
    name = str(config.get("_class_name") or "")
    if not name.startswith("FlowMatchEuler"):
        raise UnsupportedFile(f"{where} (scheduler): {name or 'its class'} is not FlowMatchEulerDiscreteScheduler.")
    steps = config.get("num_train_timesteps", TRAIN_TIMESTEPS)
    if steps != TRAIN_TIMESTEPS:
        raise UnsupportedFile(f"{where} (scheduler): num_train_timesteps is {steps!r}, not {TRAIN_TIMESTEPS}.")
    for key in _FLOW_SETTINGS:
        if config.get(key):
            raise UnsupportedFile(f"{where} (scheduler): {key} is {config[key]!r}, which is not used here.")
    shift = config.get("shift", 1.0)
    if not is_number(shift) or not 0 < shift <= MOST_SHIFT:
        raise UnsafeFile(f"{where} (scheduler): shift is {shift!r}, not a number above 0 and up to {MOST_SHIFT}.")


def is_number(value: Any) -> bool:
    """Whether a setting is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_beta(value: Any) -> bool:
    return is_number(value) and 0 < value <= 1
