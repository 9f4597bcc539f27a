"""ComfyUI's names of samplers and noise schedules, as near to what an image was sampled with as they come.

Its initial noise is the same: a CPU generator with the image's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbcli.project.images.recipes import Recipe
from dbcli.workflows.images.generated import PUBLISHED_TIMESTEPS, TIMESTEPS_KEY

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

TRAIN_TIMESTEPS = 1000
# ComfyUI's sampler of the same method.
SAME = {
    "ddim": "ddim",
    "dpm++": "dpmpp_2m",
    "dpm++-karras": "dpmpp_2m",
    "euler": "euler",
    "heun": "heun",
}
# Of the same method, with noise of its own in every step.
OWN_NOISE = {"ddpm": "ddpm", "dpm++-sde": "dpmpp_2m_sde", "euler-a": "euler_ancestral"}
# Of a related method.
RELATED = {"pndm": "ipndm", "unipc": "uni_pc_bh2"}
NAMES = SAME | OWN_NOISE | RELATED
# Noise levels by a formula of their own.
FORMULAS = {"dpm++-karras": "karras"}
FLOW_SCHEDULE = "simple"


def _simple(steps: int) -> Sequence[float]:
    return [TRAIN_TIMESTEPS - 1 - int(step * TRAIN_TIMESTEPS / steps) for step in range(steps)]


def _ddim_uniform(steps: int) -> Sequence[float]:
    return list(range(1, TRAIN_TIMESTEPS, max(TRAIN_TIMESTEPS // steps, 1)))[::-1]


def _normal(steps: int) -> Sequence[float]:
    return [(TRAIN_TIMESTEPS - 1) * (1 - step / max(steps - 1, 1)) for step in range(steps)]


def _sgm_uniform(steps: int) -> Sequence[float]:
    return [(TRAIN_TIMESTEPS - 1) * (1 - step / steps) for step in range(steps)]


# ComfyUI's noise schedule -> the timesteps that it visits, falling (version 0.3.64).
SCHEDULES: dict[str, Callable[[int], Sequence[float]]] = {
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "normal": _normal,
    "sgm_uniform": _sgm_uniform,
}


@dataclass(frozen=True)
class ComfySampling:
    """ComfyUI's sampler and scheduler, and what the image there differs by, a sentence each."""

    sampler: str
    scheduler: str
    notes: tuple[str, ...] = ()


def comfy_sampling(recipe: Recipe, base: Base) -> ComfySampling:
    """How ComfyUI comes nearest to a recipe; of `base` only the scheduler's settings are looked at."""
    from dbcli.diffusion.schedulers.prediction import FLOW

    if base.prediction_type == FLOW:
        return ComfySampling(NAMES[recipe.sampler], FLOW_SCHEDULE)
    schedule = FORMULAS.get(recipe.sampler) or nearest_schedule(_visited(recipe, base), recipe.steps)
    return ComfySampling(NAMES[recipe.sampler], schedule, tuple(_notes(recipe)))


def nearest_schedule(visited: Sequence[float], steps: int) -> str:
    """The schedule whose timesteps lie nearest to `visited`, of as many steps; the first among equals."""
    found = {name: made for name, schedule in SCHEDULES.items() if len(made := schedule(steps)) == len(visited)}
    apart = {
        name: max(abs(one - other) for one, other in zip(made, visited, strict=True)) for name, made in found.items()
    }
    return min(apart, key=lambda name: apart[name], default=FLOW_SCHEDULE)


def _visited(recipe: Recipe, base: Base) -> list[float]:
    """The timesteps of the recipe's image, each once: some samplers visit one twice."""
    from dbcli.diffusion.schedulers.samplers import make_sampler

    wanted = str(recipe.extras.get(TIMESTEPS_KEY, PUBLISHED_TIMESTEPS))
    sampler = make_sampler(recipe.sampler, base.scheduler_config, wanted)
    sampler.set_timesteps(recipe.steps)
    return list(dict.fromkeys(float(one) for one in sampler.timesteps))


def _notes(recipe: Recipe) -> list[str]:
    own, theirs = recipe.sampler, NAMES[recipe.sampler]
    notes = []
    if own in OWN_NOISE:
        notes.append(f"The sampler {own} adds noise in every step, and ComfyUI adds other noise: another image.")
    if own in RELATED:
        notes.append(f"ComfyUI does not have the sampler {own}; {theirs} is the most like it: a similar image.")
    if recipe.eta:
        notes.append(f"ComfyUI's {theirs} has no eta; the image was generated with {recipe.eta:g}: another image.")
    return notes
