"""Noise schedules for drawing, by the names people use, each made from the base's own scheduler settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dbcli.errors import ConfigError

# name -> (diffusers class, settings on top of the base's)
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpm++-karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    "dpm++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}

# Settings of a base's scheduler that mean the same to every sampler; others belong to one class.
SHARED = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "steps_offset",
    "timestep_spacing",
    "rescale_betas_zero_snr",
)


def make_sampler(name: str, scheduler_config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler for drawing with the base whose scheduler settings are given.

    Raises ConfigError naming the samplers there are.
    """
    import diffusers

    if name not in SAMPLERS:
        raise ConfigError(f'There is no sampler "{name}".', hint="Samplers: " + ", ".join(SAMPLERS))
    class_name, extra = SAMPLERS[name]
    kind = getattr(diffusers, class_name)
    shared = {key: scheduler_config[key] for key in SHARED if scheduler_config.get(key) is not None}
    if class_name in ("DDIMScheduler", "PNDMScheduler"):
        shared["set_alpha_to_one"] = scheduler_config.get("set_alpha_to_one", False)
    if class_name in ("DDIMScheduler", "DDPMScheduler"):
        shared["clip_sample"] = scheduler_config.get("clip_sample", False)
    accepted = set(inspect.signature(kind.__init__).parameters)
    return kind(**{key: value for key, value in (shared | extra).items() if key in accepted})


def alphas_of(scheduler_config: Mapping[str, Any]) -> Any:
    """The base's cumulative alphas, float32 `[T]`, as its training saw them."""
    return make_sampler("ddpm", scheduler_config).alphas_cumprod
