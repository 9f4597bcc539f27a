"""What a denoiser is conditioned on: the text encoders' states of each prompt, and what some families add to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Conditioning:
    """N prompts as a denoiser reads them.

    `states` float `[N, L, D]` are those of every token, `pooled` float `[N, P]` one vector a prompt, `mask` bool
    `[N, L]` which tokens count; the last two only where the family has them.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def rows(self, places: Sequence[int] | slice) -> Conditioning:
        """Those of the prompts, one or more times each."""
        chosen = (
            places if isinstance(places, slice) else torch.as_tensor(list(places), device=self.states.device).long()
        )
        return self.each(lambda tensor: tensor[chosen])

    def expand(self, count: int) -> Conditioning:
        """One prompt as `count` rows, which share its memory."""
        return self.each(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Conditioning:
        """The same elsewhere, in another type; a mask keeps its own."""
        return self.each(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """Every tensor changed."""
        pooled, mask = (None if one is None else change(one) for one in (self.pooled, self.mask))
        return Conditioning(change(self.states), pooled, mask)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """The prompts of several, one after the other; all have the same tensors."""

        def joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
            whole = [one for one in tensors if one is not None]
            return torch.cat(whole) if whole else None

        states = torch.cat([part.states for part in parts])
        return Conditioning(states, joined([part.pooled for part in parts]), joined([part.mask for part in parts]))
