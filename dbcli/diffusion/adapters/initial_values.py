"""What a new LoRA begins with where that is not zero: the weight's own principal part, or orthogonal matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Initialisation = Literal["zero", "pissa", "orthogonal"]


@dataclass(frozen=True)
class InitialValues:
    """A `[rank, in]`, E `[rank]` or None for ones, B `[out, rank]`, float32: the addition is B diag(E) A."""

    down: torch.Tensor
    scales: torch.Tensor | None
    up: torch.Tensor


@torch.no_grad()
def initial_values(kind: Initialisation, weight: torch.Tensor, rank: int, strength: float) -> InitialValues:
    """The start of a LoRA of at most `rank` on a weight `[out, in]`, whose product is multiplied by `strength`.

    `zero`: A at random, B zero (Hu et al. 2022). `pissa`: the weight's largest singular values and their vectors, half
    of each value on either side, so that strength · B A is that part of it (Meng et al. 2024, arXiv:2404.02948).
    `orthogonal`: the smallest singular values of a random matrix of the weight's shape, with E learnt by itself
    (Soboleva et al. 2025, arXiv:2507.05964). Values come from the CPU's global random state on every device.
    """
    outputs, inputs = weight.shape
    rank = min(rank, outputs, inputs)
    # Devices draw other numbers of one seed; where there are no values none are drawn.
    generator_device = weight.device if weight.is_meta else torch.device("cpu")
    if kind == "zero":
        down = torch.empty(rank, inputs, device=generator_device)
        torch.nn.init.kaiming_uniform_(down, a=5**0.5)
        return InitialValues(down.to(weight.device), None, torch.zeros(outputs, rank, device=weight.device))
    if kind == "pissa":
        left, values, right = _decomposed(weight, slice(None, rank))
        roots = (values / strength).sqrt()
        return InitialValues(roots[:, None] * right, None, left * roots)
    random = torch.randn(outputs, inputs, device=generator_device) / rank
    left, values, right = _decomposed(random.to(weight.device), slice(-rank, None))
    return InitialValues(right, values, left)


def _decomposed(matrix: torch.Tensor, which: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular values and vectors of a matrix `[m, n]`, the largest first, those of them that `which` names.

    Left `[m, k]`, values `[k]` and right `[k, n]`, float32, from the eigenvectors of the smaller of its two products
    with itself, in float64: a tenth of the time that a whole decomposition of a large convolution takes. A randomised
    one of a few ranks would miss values that lie close together, as a weight's do.
    """
    device = matrix.device
    whole = matrix.cpu().double() if device.type == "mps" else matrix.double()
    is_tall = len(whole) > whole.shape[1]
    wide = whole.T if is_tall else whole
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    squares, ours = squares.flip(0)[which].clamp_min(0), vectors.flip(1)[:, which]
    values = squares.sqrt()
    theirs = ours.T @ wide
    # Of a value that is 0 the other vector is any; none is what leaves the matrix as it is.
    theirs = theirs / theirs.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    left, right = (theirs.T, ours.T) if is_tall else (ours, theirs)
    found = (left, values, right)
    return tuple(one.to(device, torch.float32).contiguous() for one in found)
