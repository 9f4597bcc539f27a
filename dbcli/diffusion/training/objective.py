"""What training minimises: the target of the base's own process, how errors count, and which noise is added."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dbcli.diffusion.families.process import Process
from dbcli.diffusion.noise import multires_rows, multires_variance, normal_rows
from dbcli.diffusion.precision import where_float64_is
from dbcli.diffusion.training import losses


@dataclass(frozen=True)
class Objective:
    """What is minimised: the target of the base's own process, weighted, with the class beside the subject."""

    process: Process
    prior_weight: float = 1.0
    min_snr_gamma: float | None = None
    debiased: bool = False
    huber: losses.PseudoHuber | None = None
    offset_noise: float = 0.0
    multires_noise: float = 0.0

    def weights(self, levels: torch.Tensor) -> torch.Tensor:
        """How much the rows' errors count, float32 `[B]`."""
        exact = where_float64_is(levels)
        found = self.process.debiased_weight(exact) if self.debiased else self.process.weight(exact, self.min_snr_gamma)
        return found.to(levels.device)

    def errors(
        self, prediction: torch.Tensor, target: torch.Tensor, levels: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The rows' mean errors, float32 `[B]`, with the weights of `mask` `[B, 1, H, W]`."""
        if self.huber is not None:
            widths = self.huber.widths(self.process, where_float64_is(levels)).to(levels.device)
            return losses.row_means(losses.pseudo_huber(prediction, target, widths), mask)
        return losses.squared_error(prediction, target, mask)

    def noise(self, shape: Sequence[int], seed: int, micro_step: int, samples: Sequence[int]) -> torch.Tensor:
        """Noise of rows of one shape, float32 `[B, C, H, W]` on the CPU, of variance 1 but for the offset."""
        noise = normal_rows(shape, seed, "noise", micro_step, samples)
        if self.multires_noise:
            # So that nothing becomes noisier than the process means.
            coarser = multires_rows(shape, seed, micro_step, samples, self.multires_noise)
            noise = (noise + coarser) / multires_variance(shape[1], shape[2], self.multires_noise).sqrt()
        if self.offset_noise:
            # A constant per channel lets images leave mean grey (Guttenberg 2023, "Diffusion with offset noise").
            noise = noise + self.offset_noise * normal_rows((shape[0], 1, 1), seed, "offset", micro_step, samples)
        return noise
