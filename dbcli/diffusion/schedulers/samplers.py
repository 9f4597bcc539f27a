"""Samplers by the names people use, each made from the base's own scheduler settings."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from dbcli.diffusion.lean_imports import lean_imports
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

# Of flow matching: name -> diffusers class.
FLOW_SAMPLERS = {"euler": "FlowMatchEulerDiscreteScheduler"}

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


# Which timesteps are visited: from the noisiest down, or those that the base's scheduler file names ("published"),
# which the images of the study were sampled with and which begin late for many numbers of steps.
NOISIEST, PUBLISHED = "noisiest", "published"
# A published list that begins below this share of all timesteps begins too late for anything but a pale image.
LATE = 0.9


def check_sampler(name: str, option: str = "--sampler") -> None:
    """Raises ConfigError, naming `option`, the nearest sampler and all there are, for a name that is none of them."""
    if name not in SAMPLERS:
        # Other programs write dpmpp.
        near = difflib.get_close_matches(name.replace("pp", "++"), SAMPLERS, n=1, cutoff=0.4)
        guess = f' Did you mean "{near[0]}"?' if near else ""
        raise ConfigError(f'{option}: there is no sampler "{name}".{guess}', hint="Samplers: " + ", ".join(SAMPLERS))


def make_sampler(name: str, scheduler_config: Mapping[str, Any], timesteps: str = NOISIEST) -> Any:
    """A diffusers scheduler for sampling with the base whose scheduler settings are given.

    With `timesteps` "noisiest" every number of steps begins at the noisiest timestep; "published" leaves the list of
    timesteps as diffusers has it. Raises ConfigError naming the samplers there are.
    """
    check_sampler(name)
    class_name, extra = SAMPLERS[name]
    with lean_imports():
        import diffusers

        kind = getattr(diffusers, class_name)
    accepted = set(inspect.signature(kind.__init__).parameters)
    shared = {key: scheduler_config[key] for key in SHARED if scheduler_config.get(key) is not None}
    if class_name in ("DDIMScheduler", "PNDMScheduler"):
        shared["set_alpha_to_one"] = scheduler_config.get("set_alpha_to_one", False)
    if class_name in ("DDIMScheduler", "DDPMScheduler"):
        shared["clip_sample"] = scheduler_config.get("clip_sample", False)
    from dbcli.diffusion.schedulers.noisiest_first import as_published, noisiest_first

    kind = noisiest_first(kind) if timesteps == NOISIEST else as_published(kind)
    sampler = kind(**{key: value for key, value in (shared | extra).items() if key in accepted})
    if has_zero_snr(scheduler_config) and "rescale_betas_zero_snr" not in accepted:
        _end_in_noise(sampler, scheduler_config)
    return sampler


def make_flow_scheduler(name: str, shift: float) -> Any:
    """A diffusers scheduler of flow matching. Raises ConfigError naming the samplers there are."""
    check_flow_sampler(name)
    with lean_imports():
        import diffusers

        kind = getattr(diffusers, FLOW_SAMPLERS[name])
    return kind(num_train_timesteps=1000, shift=shift)


def check_flow_sampler(name: str, settings: Sequence[str] = ()) -> None:
    """Raises ConfigError for a sampler that flow matching has not; `settings` are the keys that name one of them."""
    if name not in FLOW_SAMPLERS:
        first, *_ = FLOW_SAMPLERS
        the = f"{', '.join(settings)}: the" if settings else "The"
        on_the_way = " ".join(f"--set {key}={first}" for key in settings or ("prior.sampler", "probe.sampler"))
        raise ConfigError(
            f'{the} sampler "{name}" is one of diffusion; the base is a flow-matching model, which has '
            f"{', '.join(FLOW_SAMPLERS)}.",
            hint=on_the_way if settings else f"--sampler {first}; for class images and probes {on_the_way}",
        )


def has_zero_snr(scheduler_config: Mapping[str, Any]) -> bool:
    """Whether the base was trained with zero terminal SNR: its last timestep is noise and nothing else."""
    return bool(scheduler_config.get("rescale_betas_zero_snr"))


def _end_in_noise(sampler: Any, scheduler_config: Mapping[str, Any]) -> None:
    """Gives Heun and PNDM, which know nothing of zero terminal SNR, its alphas; the last one as the others have it."""
    sampler.alphas_cumprod = alphas_of(scheduler_config).clone()
    sampler.alphas_cumprod[-1] = 2**-24  # they divide by it


def visited(name: str, scheduler_config: Mapping[str, Any], steps: int, wanted: str) -> str:
    """Which of the two lists of timesteps an image is sampled on; "published" where both are the same.

    Raises ConfigError for a sampler that does not exist.
    """
    lists = {}
    for which in (PUBLISHED, NOISIEST):
        sampler = make_sampler(name, scheduler_config, which)
        sampler.set_timesteps(steps)
        lists[which] = sampler.timesteps.tolist()
    last, first = int(sampler.config.num_train_timesteps) - 1, lists[PUBLISHED][0]
    is_late = not LATE * last <= first <= last
    return PUBLISHED if lists[PUBLISHED] == lists[NOISIEST] or (wanted == PUBLISHED and not is_late) else NOISIEST


def alphas_of(scheduler_config: Mapping[str, Any]) -> Any:
    """The base's cumulative alphas, float32 `[T]`, as its training saw them."""
    return make_sampler("ddpm", scheduler_config, PUBLISHED).alphas_cumprod
