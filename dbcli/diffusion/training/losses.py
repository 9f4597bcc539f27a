"""The mathematics of DreamBooth's loss, as pure functions of tensors.

What rows should predict, and how much each counts, is their process's to say (`families.process`).
"""

from dataclasses import dataclass

import torch

from dbcli.diffusion.families.process import Process


@dataclass(frozen=True)
class LossParts:
    """Scalars of one step: `total` carries the gradient, the others are detached means for the log."""

    total: torch.Tensor
    subject: torch.Tensor
    prior: torch.Tensor | None


# What float32 results in a batch of another size may differ by, relative to 1 + |prediction|.
ROUNDING = 1e-5


def teacher_target(prediction: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The teacher's prediction, float32 of the same shape, and the student's own where they differ by rounding alone.

    AdamW divides a gradient by its own size: without this, rounding would move a student that agrees with its teacher.
    """
    own, taught = prediction.detach().float(), teacher.float()
    return torch.where((own - taught).abs() <= ROUNDING * (1 + taught.abs()), own, taught)


@dataclass(frozen=True)
class PseudoHuber:
    """Squares for small errors and lines for large ones, so that a photo's odd places weigh less.

    Errors are small below a width that goes from 1 at the image towards `least` at noise by a schedule: "exponential",
    or "snr", which falls sooner; with "constant" it is `least` everywhere. From Khrapov et al. 2024 ("Improving
    Diffusion Models's Data-Corruption Resistance using Scheduled Pseudo-Huber Loss", arXiv:2403.16728), in the forms of
    kohya's sd-scripts (--loss_type huber, --huber_schedule, --huber_c).
    """

    schedule: str
    least: float

    def widths(self, process: Process, levels: torch.Tensor) -> torch.Tensor:
        """The width of every row, float32 `[B]`."""
        if self.schedule == "constant":
            return torch.full(levels.shape, self.least, device=levels.device)
        if self.schedule == "exponential":
            return (self.least ** process.share(levels)).float()
        # Noise over signal, as a spread: infinite where no signal is left.
        spread = process.snr(levels).rsqrt()
        return (self.least + (1 - self.least) / (1 + spread).square()).float()


def squares(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared differences, float32 `[B, C, H, W]`."""
    return (prediction.float() - target.float()).square()


def pseudo_huber(prediction: torch.Tensor, target: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """2 c (sqrt(x^2 + c^2) - c) of differences x with the rows' widths c `[B]`, float32 `[B, C, H, W]`.

    About x^2 where x is far below c, and 2 c |x| far above it.
    """
    squared, width = squares(prediction, target), widths.float().view(-1, 1, 1, 1)
    # The same without a difference of two nearly equal numbers.
    return 2 * width * squared / ((squared + width.square()).sqrt() + width)


def row_means(errors: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The mean error of every row, float32 `[B]`, with the weights of `mask` `[B, 1, H, W]` (0 or more).

    The caller alone reduces over rows.
    """
    if mask is None:
        return errors.flatten(1).mean(1)
    weight = mask.float().expand_as(errors).flatten(1)
    return (errors.flatten(1) * weight).sum(1) / weight.sum(1).clamp_min(1e-8)


def squared_error(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared error of every row, float32 `[B]`, with the weights of `mask` `[B, 1, H, W]` (0 or more)."""
    return row_means(squares(prediction, target), mask)


def dreambooth_loss(
    row_errors: torch.Tensor,
    row_weights: torch.Tensor,
    subject_rows: int,
    prior_weight: float,
    of_rows: tuple[int, int] | None = None,
) -> LossParts:
    """Subject term + prior_weight x prior term (Ruiz et al. 2023, equation 1).

    row_errors and row_weights are `[B]`; the first `subject_rows` rows show the subject, the rest the class.
    Each term is the weighted mean over its own rows, so the balance does not move with the number of rows.
    Without class rows the second term is left out.

    Where the rows are a part of a batch, B = 0 allowed, that has `of_rows` subject and class rows, each term is divided
    by these: over all parts the losses sum to that of the batch.
    """
    weighted = row_errors * row_weights
    subject, prior = weighted[:subject_rows], weighted[subject_rows:]
    subject_term = subject.mean() if of_rows is None else subject.sum() / of_rows[0]
    if (of_rows or (0, len(prior)))[1] == 0:
        return LossParts(subject_term, subject_term.detach(), None)
    prior_term = prior.mean() if of_rows is None else prior.sum() / of_rows[1]
    return LossParts(subject_term + prior_weight * prior_term, subject_term.detach(), prior_term.detach())
