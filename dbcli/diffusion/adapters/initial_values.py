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
    (Soboleva et al. 2025, arXiv:2507.05964). Values come from the global random state.
    """
    outputs, inputs = weight.shape
    rank = min(rank, outputs, inputs)
    if kind == "zero":
        down = torch.empty(rank, inputs, device=weight.device)
        torch.nn.init.kaiming_uniform_(down, a=5**0.5)
        return InitialValues(down, None, torch.zeros(outputs, rank, device=weight.device))
    if kind == "pissa":
        # Whole: a randomised decomposition of a few ranks misses values that lie close together, as a weight's do.
        left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
        roots = (values[:rank] / strength).sqrt()
        return InitialValues(roots[:, None] * right[:rank], None, left[:, :rank] * roots)
    random = torch.randn(outputs, inputs, device=weight.device) / rank
    left, values, right = torch.linalg.svd(random, full_matrices=False)
    return InitialValues(right[-rank:].contiguous(), values[-rank:].clone(), left[:, -rank:].contiguous())
