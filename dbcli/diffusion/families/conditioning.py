"""What a denoiser is conditioned on: the text encoders' states of each prompt, and what some families add to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

# A row of `Conditioning.frames`.
Frame = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Conditioning:
    """N prompts as a denoiser reads them.

    `states` float `[N, L, D]` are those of every token, `pooled` float `[N, P]` one vector a prompt, `mask` bool
    `[N, L]` which tokens count; the last two only where the family has them.

    `frames` int64 `[N, 6]` say how each row's image came to its size, in px: its height and width before it was scaled,
    how far from its top and left edge it was cut after that, and its height and width now. None where every image is
    as large as it ever was; which family tells its denoiser of it is the family's affair.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    frames: torch.Tensor | None = None

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
        """The same elsewhere, in another type; mask and frames keep theirs."""
        return self.each(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """Every tensor changed."""
        others = (self.pooled, self.mask, self.frames)
        return Conditioning(change(self.states), *(None if one is None else change(one) for one in others))

    def framed(self, frames: Sequence[Frame]) -> Conditioning:
        """The same for images that came to their size like this."""
        return replace(self, frames=torch.tensor(frames, device=self.states.device))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """The prompts of several, one after the other; all have the same tensors."""

        def joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
            whole = [one for one in tensors if one is not None]
            return torch.cat(whole) if whole else None

        states = torch.cat([part.states for part in parts])
        pooled, mask, frames = (
            joined([getattr(part, name) for part in parts]) for name in ("pooled", "mask", "frames")
        )
        return Conditioning(states, pooled, mask, frames)
