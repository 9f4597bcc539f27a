"""How noise is added and taken away: the level of a row, the row at that level, its target, its weight, the samplers.

Notation: clean latents x0 `[B, C, H, W]`, noise e of the same shape. A level is what the denoiser is told of the noise.
In diffusion it is a whole timestep t of an alpha table a `[T]`, with x_t = sqrt(a_t) x0 + sqrt(1 - a_t) e; in flow
matching it is the share s of noise in [0, 1], with x_s = (1 - s) x0 + s e.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch

from dbcli.diffusion.noise import generator_for
from dbcli.diffusion.schedulers.checks import check_diffusion, check_flow
from dbcli.diffusion.schedulers.prediction import EPSILON, FLOW, V, settle, settle_flow
from dbcli.diffusion.schedulers.samplers import (
    FLOW_SAMPLERS,
    NOISIEST,
    PUBLISHED,
    SAMPLERS,
    alphas_of,
    check_flow_sampler,
    has_zero_snr,
    make_flow_scheduler,
    make_sampler,
    visited,
)
from dbcli.diffusion.schedulers.steps import DiffusionSteps, FlowSteps, Sampler

# With less signal than this an error of the noise would count a hundred times and more.
LEAST_SNR = 1e-4


class Process(Protocol):
    """What training and sampling need of a noise process, in one convention for every family."""

    # The class of diffusers that takes the base's scheduler settings whole.
    scheduler_class: ClassVar[str]
    # Whether an image is drawn from noise alone: noise that has been given larger shapes in training was never that.
    begins_with_noise: ClassVar[bool]

    @property
    def rescales_guidance(self) -> bool:
        """Whether guidance has to be rescaled, as nothing else bounds what is predicted from pure noise."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What of it decides which images weights make, as plain values; part of a base's hash."""

    def to(self, device: torch.device) -> Process:
        """The same on a device."""

    def level(self, generator: torch.Generator) -> torch.Tensor:
        """One level of training, drawn at random, `[1]`."""

    def level_at(self, share: float) -> torch.Tensor:
        """The level that lies at a share of the way from an image, 0, to noise, 1; a scalar."""

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Latents at levels `[B]`."""

    def target(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """What the denoiser should say of them."""

    def share(self, levels: torch.Tensor) -> torch.Tensor:
        """How far levels `[B]` are on the way from an image, 0, to noise, 1; float64 `[B]`."""

    def snr(self, levels: torch.Tensor) -> torch.Tensor:
        """The squared ratio of signal to noise at levels `[B]`, float64 `[B]`; infinite where there is no noise."""

    def weight(self, levels: torch.Tensor, gamma: float | None) -> torch.Tensor:
        """How much the rows' errors count, float32 `[B]`: min-SNR with `gamma`, all alike with None."""

    def debiased_weight(self, levels: torch.Tensor) -> torch.Tensor:
        """How much the rows' errors count where estimates of the image are to be debiased, float32 `[B]`.

        An error of the image counts sqrt(SNR), and so one of the noise 1 / sqrt(SNR): Yu et al. 2023 ("Debias the
        Training of Diffusion Models", arXiv:2310.08442).
        """

    def samplers(self) -> Sequence[str]:
        """The names of the samplers that fit."""

    def sampler(
        self,
        name: str,
        steps: int,
        timesteps: str,
        *,
        device: Any,
        generators: list[torch.Generator],
        eta: float = 0.0,
    ) -> Sampler:
        """A sampler set to a number of steps; `generators`, one an image, and `eta` are for those that add noise.

        For `timesteps` see `make_sampler`. Raises ConfigError naming the samplers there are.
        """

    def visited(self, sampler: str, steps: int, wanted: str) -> str:
        """Which list of timesteps an image is sampled on; see `samplers.visited`."""


def level_rows(process: Process, run_seed: int, step: int, samples: Sequence[int]) -> torch.Tensor:
    """A level for every row, `[len(samples)]`, one generator a row."""
    return torch.cat([process.level(generator_for(run_seed, "timestep", step, sample)) for sample in samples])


@dataclass(frozen=True)
class Diffusion:
    """Diffusion on an alpha table, float32 `[T]`, of a denoiser that predicts the noise or v.

    `scheduler` are the base's scheduler settings, which samplers are made from.
    """

    scheduler_class: ClassVar[str] = "DDIMScheduler"
    begins_with_noise: ClassVar[bool] = False

    alphas: torch.Tensor
    prediction: str = EPSILON
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, scheduler: Mapping[str, Any]) -> Diffusion:
        """The process that a base's scheduler settings describe."""
        return cls(alphas_of(scheduler), scheduler.get("prediction_type") or EPSILON, scheduler)

    @staticmethod
    def settle(scheduler: dict[str, Any], override: str | None, where: str) -> None:
        """See `prediction.settle`."""
        settle(scheduler, override, where)

    @staticmethod
    def check(scheduler: Mapping[str, Any], where: str) -> None:
        """See `checks.check_diffusion`."""
        check_diffusion(scheduler, where)

    @property
    def rescales_guidance(self) -> bool:
        return has_zero_snr(self.scheduler)

    @property
    def facts(self) -> Mapping[str, Any]:
        zero_snr = {"zero_snr": True} if has_zero_snr(self.scheduler) else {}
        return {"prediction_type": self.prediction, **zero_snr}

    def to(self, device: torch.device) -> Diffusion:
        return replace(self, alphas=self.alphas.to(device))

    def level(self, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(0, len(self.alphas), (1,), generator=generator)

    def level_at(self, share: float) -> torch.Tensor:
        return torch.tensor(round(share * len(self.alphas)))

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """x_t = sqrt(a_t) x0 + sqrt(1 - a_t) e (Ho et al. 2020, equation 4)."""
        return self._signal(levels, clean) * clean + self._spread(levels, clean) * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """The noise itself, or v = sqrt(a_t) e - sqrt(1 - a_t) x0 (Salimans and Ho 2022, section 4)."""
        if self.prediction != V:
            return noise
        return self._signal(levels, clean) * noise - self._spread(levels, clean) * clean

    def share(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.double() / len(self.alphas)

    def snr(self, levels: torch.Tensor) -> torch.Tensor:
        alphas = self.alphas.to(levels.device)[levels].double()
        return alphas / (1 - alphas)

    def weight(self, levels: torch.Tensor, gamma: float | None) -> torch.Tensor:
        """Min-SNR weights (Hang et al. 2023, section 3.4).

        SNR = a / (1 - a). The weight on the error of x0 is min(SNR, gamma); an error of epsilon is SNR times
        that of x0's inverse, so it takes min(SNR, gamma) / SNR, and one of v takes min(SNR, gamma) / (SNR + 1).
        """
        if gamma is None:
            return torch.ones(levels.shape[0], device=levels.device)
        snr = self.snr(levels)
        clipped = snr.clamp_max(gamma)
        weights = clipped / (snr + 1) if self.prediction == V else clipped / snr
        # At zero terminal SNR an epsilon weight is 0 / 0; its limit is 1.
        return torch.nan_to_num(weights, nan=1.0).float()

    def debiased_weight(self, levels: torch.Tensor) -> torch.Tensor:
        """1 / sqrt(SNR) of an error of epsilon, sqrt(SNR) / (SNR + 1) of one of v, which is SNR + 1 times x0's."""
        snr = self.snr(levels)
        if self.prediction == V:
            # Without any noise it would be infinity over infinity; its limit is 0.
            return torch.nan_to_num(snr.sqrt() / (snr + 1), nan=0.0).float()
        return snr.clamp_min(LEAST_SNR).rsqrt().float()

    def samplers(self) -> Sequence[str]:
        return list(SAMPLERS)

    def sampler(
        self,
        name: str,
        steps: int,
        timesteps: str = NOISIEST,
        *,
        device: Any,
        generators: list[torch.Generator],
        eta: float = 0.0,
    ) -> Sampler:
        return DiffusionSteps(make_sampler(name, self.scheduler, timesteps), steps, device, generators, eta)

    def visited(self, sampler: str, steps: int, wanted: str) -> str:
        return visited(sampler, self.scheduler, steps, wanted)

    def _signal(self, levels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return _per_row(self.alphas.sqrt(), levels, like)

    def _spread(self, levels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return _per_row((1 - self.alphas).sqrt(), levels, like)


@dataclass(frozen=True)
class Flow:
    """Flow matching on straight lines, of a denoiser that predicts the velocity e - x0 (Liu et al. 2023, equation 1).

    `shift` moves levels towards noise, s = shift u / (1 + (shift - 1) u), of which larger images need more (Esser et
    al. 2024, equation 23): those of training, where u is uniform, and those of a sampler's steps alike.
    """

    scheduler_class: ClassVar[str] = FLOW_SAMPLERS["euler"]
    begins_with_noise: ClassVar[bool] = True

    shift: float = 1.0
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, scheduler: Mapping[str, Any]) -> Flow:
        """The process that a base's scheduler settings describe."""
        return cls(float(scheduler.get("shift", 1.0)), scheduler)

    @staticmethod
    def settle(scheduler: dict[str, Any], override: str | None, where: str) -> None:
        """See `prediction.settle_flow`."""
        settle_flow(scheduler, override, where)

    @staticmethod
    def check(scheduler: Mapping[str, Any], where: str) -> None:
        """See `checks.check_flow`."""
        check_flow(scheduler, where)

    @property
    def rescales_guidance(self) -> bool:
        return False

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"prediction_type": FLOW, "shift": self.shift}

    def to(self, device: torch.device) -> Flow:
        return self

    def level(self, generator: torch.Generator) -> torch.Tensor:
        return self.shifted(torch.rand(1, generator=generator))

    def level_at(self, share: float) -> torch.Tensor:
        return torch.tensor(share, dtype=torch.float32)

    def shifted(self, shares: torch.Tensor) -> torch.Tensor:
        """Shares in [0, 1] moved towards 1."""
        return self.shift * shares / (1 + (self.shift - 1) * shares)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """x_s = (1 - s) x0 + s e."""
        shares = _as_rows(levels, clean)
        return (1 - shares) * clean + shares * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """The velocity dx_s / ds = e - x0, the same at all levels."""
        return noise - clean

    def share(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.double()

    def snr(self, levels: torch.Tensor) -> torch.Tensor:
        shares = levels.double()
        return ((1 - shares) / shares).square()

    def weight(self, levels: torch.Tensor, gamma: float | None) -> torch.Tensor:
        """Min-SNR weights, with SNR = ((1 - s) / s)^2.

        x0 = x_s - s v, so that an error of x0 is s^2 that of v: it takes min(SNR, gamma) s^2, as diffusion's does.
        """
        if gamma is None:
            return torch.ones(levels.shape[0], device=levels.device)
        shares = levels.double()
        return torch.minimum((1 - shares).square(), gamma * shares.square()).float()

    def debiased_weight(self, levels: torch.Tensor) -> torch.Tensor:
        """s^2 sqrt(SNR) = s (1 - s) of an error of v, as that of x0 is s^2 of it."""
        shares = levels.double()
        return (shares * (1 - shares)).float()

    def samplers(self) -> Sequence[str]:
        return list(FLOW_SAMPLERS)

    def sampler(
        self,
        name: str,
        steps: int,
        timesteps: str = NOISIEST,
        *,
        device: Any,
        generators: list[torch.Generator],
        eta: float = 0.0,
    ) -> Sampler:
        return FlowSteps(make_flow_scheduler(name, self.shift), steps, device)

    def visited(self, sampler: str, steps: int, wanted: str) -> str:
        """There is one list of levels: that which the scheduler file means."""
        check_flow_sampler(sampler)
        return PUBLISHED


def _as_rows(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Numbers `[B]` as `[B, 1, 1, 1]` in the dtype and on the device of `like`."""
    return values.to(like.device, like.dtype).view(-1, *([1] * (like.ndim - 1)))


def _per_row(values: torch.Tensor, levels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """values[t] as `[B, 1, 1, 1]` in the dtype of `like`."""
    rows = values.to(like.device)[levels].to(like.dtype)
    return rows.view(-1, *([1] * (like.ndim - 1)))
