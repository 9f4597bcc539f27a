"""LoKr and LoHa for `client_files`: layers of random values, and what they come to, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def random_product(recipe: Any, shape: Sequence[int], rank: int, alpha: float, generator: torch.Generator) -> Any:
    """A layer of LoKr or LoHa of random values for a weight, as a `Recipe` of `client_files` has them."""
    from dbcli.diffusion.adapters.product_layers import new_layer

    how: Any = {"factor": recipe.factor, "both": recipe.both, "tucker": recipe.tucker}
    layer = new_layer(recipe.kind, shape, rank=rank, alpha=alpha, **how)  # type: ignore[arg-type]
    return layer.each(lambda factor: torch.randn(factor.shape, generator=generator) * 0.2)


def multiplied(factors: Mapping[str, torch.Tensor], alpha: float, shape: Sequence[int]) -> torch.Tensor:
    """What LoKr's or LoHa's factors come to, written out entry by entry (LyCORIS, Yeh et al. 2023, section 3)."""

    def matrix(name: str, core: str) -> tuple[torch.Tensor, int | None]:
        if name in factors:
            return factors[name].flatten(1), None
        outer, inner = factors[f"{name}_a"], factors[f"{name}_b"]
        if core in factors:
            kernel = factors[core].flatten(2)
            found = sum(
                outer[i][:, None, None] * inner[j][None, :, None] * kernel[i, j]
                for i in range(len(outer))
                for j in range(len(inner))
            )
            return found.flatten(1), len(inner)
        return sum(outer[:, [i]] * inner[[i]] for i in range(len(inner))), len(inner)

    if "hada_w1_a" in factors:
        (one, rank), (other, _) = matrix("hada_w1", "hada_t1"), matrix("hada_w2", "hada_t2")
        return (one * other).reshape(tuple(shape)) * (alpha / rank)
    (one, first), (other, second) = matrix("lokr_w1", ""), matrix("lokr_w2", "lokr_t2")
    whole = torch.cat([torch.cat([entry * other for entry in row], dim=1) for row in one])
    rank = second or first
    return whole.reshape(tuple(shape)) * (1.0 if rank is None else alpha / rank)
