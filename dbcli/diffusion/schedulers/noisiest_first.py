"""Schedulers of diffusers that begin at the noisiest timestep, whatever the number of steps.

diffusers' `leading` spacing begins late (600 steps at timestep 600 of 1000) and can name a timestep that is not there
(1000 of 1000 steps); `linspace` begins a single step at timestep 0; `trailing` adds a timestep -1 for 62 numbers of
steps. An image that begins late begins from more noise than its first timestep has, and stays pale.
"""

from fractions import Fraction
from typing import Any

import torch


def trailing(steps: int, train_timesteps: int) -> list[int]:
    """`steps` timesteps evenly spaced from the noisiest down (Lin et al. 2024, table 2), halves rounded up."""
    return [(2 * train_timesteps * left + steps) // (2 * steps) - 1 for left in range(steps, 0, -1)]


def _give_step_ratio(scheduler: Any, interval: int) -> None:
    """Makes the scheduler's next `step` go down by `interval` timesteps.

    It takes `num_train_timesteps // num_inference_steps` for that: right only where steps divide the timesteps.
    """
    scheduler.num_inference_steps = Fraction(scheduler.config.num_train_timesteps, interval)


# Each of the following is mixed into a scheduler class of diffusers and called before it.


class TrailingDDIM:
    """DDIM on trailing timesteps, each step down to the next one that is visited."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
        self.visited = trailing(num_inference_steps, self.config.num_train_timesteps)
        self.timesteps = torch.tensor(self.visited, device=device)

    def step(
        self: Any,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        eta: float = 0.0,
        generator: Any = None,
    ) -> Any:
        parent: Any = super()
        _give_step_ratio(self, int(timestep) - _next_below(self.visited, int(timestep)))
        return parent.step(model_output, timestep, sample, eta=eta, generator=generator)


class TrailingDDPM:
    """DDPM on trailing timesteps; it looks the next one up by itself."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
        parent: Any = super()
        parent.set_timesteps(device=device, timesteps=trailing(num_inference_steps, self.config.num_train_timesteps))


class TrailingPNDM:
    """PLMS on trailing timesteps; the second is visited twice, as a step of half the order begins it."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
        parent: Any = super()
        parent.set_timesteps(num_inference_steps, device=device)
        self.visited = trailing(num_inference_steps, self.config.num_train_timesteps)
        self.timesteps = torch.tensor([*self.visited[:2], *self.visited[1:]], device=device)

    def step(self: Any, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> Any:
        parent: Any = super()
        here = self.visited[0] if self.counter == 1 else int(timestep)
        _give_step_ratio(self, here - _next_below(self.visited, here))
        return parent.step(model_output, timestep, sample)


def _next_below(timesteps: list[int], timestep: int) -> int:
    """The timestep that comes after one; -1 stands for the image."""
    position = timesteps.index(timestep) + 1
    return timesteps[position] if position < len(timesteps) else -1


class FirstSoundSpacing:
    """Any other sampler, on the first spacing that begins at the noisiest timestep."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None, *others: Any) -> None:
        parent: Any = super()
        said = self.config.timestep_spacing
        for spacing in dict.fromkeys(["linspace" if said == "leading" else said, "trailing", "linspace"]):
            self.register_to_config(timestep_spacing=spacing)
            parent.set_timesteps(num_inference_steps, device, *others)
            if _is_sound(self, num_inference_steps):
                break
        # Where rounding makes the first two timesteps equal, the library would begin with the second and end too late.
        if hasattr(self, "set_begin_index"):
            self.set_begin_index(0)


def _is_sound(scheduler: Any, steps: int) -> bool:
    visited = scheduler.timesteps.tolist()
    begins = round(visited[0]) == scheduler.config.num_train_timesteps - 1
    # Karras' noise levels may share a timestep.
    distinct = scheduler.config.get("use_karras_sigmas") or len(set(visited)) == steps
    return bool(begins and distinct and visited[-1] >= 0)


class BeginsAtFirst:
    """A scheduler as published, beginning with the first of its timesteps where the second is equal."""

    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None, *others: Any) -> None:
        parent: Any = super()
        parent.set_timesteps(num_inference_steps, device, *others)
        self.set_begin_index(0)


TRAILING = {"DDIMScheduler": TrailingDDIM, "DDPMScheduler": TrailingDDPM, "PNDMScheduler": TrailingPNDM}


def noisiest_first(kind: type) -> Any:
    """The scheduler class that begins at the noisiest timestep and else is `kind`."""
    return type(kind.__name__, (TRAILING.get(kind.__name__, FirstSoundSpacing), kind), {})


def as_published(kind: type) -> Any:
    """The scheduler class on its own timesteps, walked to their end."""
    return type(kind.__name__, (BeginsAtFirst, kind), {}) if hasattr(kind, "set_begin_index") else kind
