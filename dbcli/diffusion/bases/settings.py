"""Settings of a base beside the shapes of its networks: what no base for Stable Diffusion has is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dbcli.diffusion.bases.unsupported import ONLY
from dbcli.errors import UnsafeFile, UnsupportedFile

TRAIN_TIMESTEPS = 1000
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
USUAL_SAMPLE_SIZE = 64
# Schedulers by the start of their class, and what a UNet under them predicts instead of noise or v.
_OTHER_PREDICTIONS = (
    ("FlowMatch", "a flow-matching model"),
    ("EDM", "an EDM model"),
    ("CosineDPM", "an EDM model"),
)


def check_settings(configs: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Raises UnsupportedFile for another kind of model, UnsafeFile for a setting that means nothing.

    `configs` are those of the scheduler, the VAE and the UNet; what is left out is as usual.
    """
    _check_scheduler(configs.get("scheduler", {}), where)
    check_scale(configs.get("vae", {}), f"{where} (vae)")
    sample_size(configs.get("unet", {}), where)


def check_scale(vae: Mapping[str, Any], where: str) -> None:
    """Raises UnsafeFile for a VAE whose latents are scaled by nothing that is a number."""
    scale = vae.get("scaling_factor", 0.18215)
    if not _is_number(scale) or not scale > 0:
        raise UnsafeFile(f"{where}: scaling_factor is {scale!r}, not a number above 0.")


def sample_size(unet: Mapping[str, Any], where: str = "unet/config.json") -> int:
    """How many latents a UNet's images are wide and high. Raises UnsafeFile where that makes no square."""
    found = unet.get("sample_size")
    sides = found if isinstance(found, list | tuple) and found else [found]
    if sides[0] is None:
        return USUAL_SAMPLE_SIZE
    if any(side != sides[0] for side in sides) or type(sides[0]) is not int or sides[0] < 1:
        raise UnsafeFile(f"{where} (unet): sample_size is {found!r}, not a whole number above 0.")
    return sides[0]


def _check_scheduler(config: Mapping[str, Any], where: str) -> None:
    name = str(config.get("_class_name") or "")
    what = next((what for start, what in _OTHER_PREDICTIONS if name.startswith(start)), None)
    if what is not None:
        raise UnsupportedFile(f"{where} is {what} ({name}).", hint=ONLY)
    steps = config.get("num_train_timesteps", TRAIN_TIMESTEPS)
    if steps != TRAIN_TIMESTEPS:
        raise UnsupportedFile(
            f"{where} (scheduler): num_train_timesteps is {steps!r}, not {TRAIN_TIMESTEPS}.", hint=ONLY
        )
    schedule = config.get("beta_schedule", "linear")
    if schedule not in BETA_SCHEDULES:
        raise UnsupportedFile(
            f"{where} (scheduler): beta_schedule is {schedule!r}, none of {', '.join(BETA_SCHEDULES)}.", hint=ONLY
        )
    betas = config.get("trained_betas")
    are_betas = isinstance(betas, list) and len(betas) == TRAIN_TIMESTEPS and all(map(_is_beta, betas))
    if betas is not None and not are_betas:
        raise UnsafeFile(f"{where} (scheduler): trained_betas are not {TRAIN_TIMESTEPS} numbers between 0 and 1.")
    for key in ("beta_start", "beta_end"):
        if key in config and not _is_beta(config[key]):
            raise UnsafeFile(f"{where} (scheduler): {key} is {config[key]!r}, not a number between 0 and 1.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_beta(value: Any) -> bool:
    return _is_number(value) and 0 < value <= 1
