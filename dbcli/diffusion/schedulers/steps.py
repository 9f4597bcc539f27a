"""From noise to an image in a number of steps, as the sampling loop sees it, whichever of diffusers' classes it is."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch


class Sampler(Protocol):
    """A sampler that is set to a number of steps; the denoiser is called once for every one of `levels`."""

    @property
    def levels(self) -> Sequence[Any]:
        """What the denoiser is told of the noise, call by call; scalars on the device of the latents."""

    def begin(self, noise: torch.Tensor) -> torch.Tensor:
        """The latents to begin with, of standard normal noise of their shape."""

    def shown(self, latents: torch.Tensor, level: Any) -> torch.Tensor:
        """The latents as the denoiser takes them at a level."""

    def after(self, prediction: torch.Tensor, level: Any, latents: torch.Tensor) -> torch.Tensor:
        """The latents one call later; the levels have to come in their order."""


class DiffusionSteps:
    """A sampler of diffusers for diffusion.

    `eta` and `generators`, one an image, are given to those of them that know such a thing: DDIM, and what adds noise.
    """

    def __init__(self, scheduler: Any, steps: int, device: Any, generators: list[torch.Generator], eta: float) -> None:
        self._scheduler = scheduler
        scheduler.set_timesteps(steps, device=device)
        accepted = inspect.signature(scheduler.step).parameters
        given = {"eta": eta, "generator": generators}
        self._extra = {name: value for name, value in given.items() if name in accepted}

    @property
    def levels(self) -> Sequence[Any]:
        timesteps: Sequence[Any] = self._scheduler.timesteps
        return timesteps

    def begin(self, noise: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = noise * self._scheduler.init_noise_sigma
        return latents

    def shown(self, latents: torch.Tensor, level: Any) -> torch.Tensor:
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, level)
        return scaled

    def after(self, prediction: torch.Tensor, level: Any, latents: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = self._scheduler.step(prediction, level, latents, **self._extra).prev_sample
        return moved


class FlowSteps:
    """Euler's method from noise, level 1, to the image, level 0, in even steps that are then shifted."""

    def __init__(self, scheduler: Any, steps: int, device: Any) -> None:
        self._scheduler = scheduler
        # As the pipelines of this kind ask for them: the scheduler's own would end above a step's width.
        scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps).tolist(), device=device)
        scheduler.set_begin_index(0)

    @property
    def levels(self) -> Sequence[Any]:
        levels: Sequence[Any] = self._scheduler.sigmas[:-1]
        return levels

    def begin(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def shown(self, latents: torch.Tensor, level: Any) -> torch.Tensor:
        return latents

    def after(self, prediction: torch.Tensor, level: Any, latents: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = self._scheduler.step(prediction, level, latents).prev_sample
        return moved
