"""An optimiser that takes one weight after the other, so that what it needs for a step never exists for all at once.

Weights in bfloat16 go on learning by it: rounded up or down by chance, so that small steps are not all lost.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from dbcli.diffusion.noise import seed_for

# Beside the inner optimiser's own slots: how often a weight was rounded, which tells the noise of the next time.
ROUNDINGS = "roundings"
DROPPED_BITS = 16  # a float32 has sixteen more bits behind a bfloat16's last
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's
# So many values are rounded at once on a CPU: few enough for its caches, several times over; four share a draw.
ROUNDED_AT_ONCE = 1 << 17
Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


class OptimizerInBackward(torch.optim.Optimizer):
    """One inner optimiser a weight, all with one state and the rates of these groups.

    in_backward: each weight is updated the moment its gradient is whole, inside backward(), and the gradient is freed
    at once; step() then has nothing left to do. So there is never a moment at which the norm of all gradients
    could be taken, or at which gradients of two backward passes could be summed.

    rounding_seed: weights in bfloat16 are updated in float32, one at a time, and rounded stochastically; None leaves
    the dtype to the inner optimiser. halves_moments: AdamW's moments are kept in bfloat16 and rounded likewise, without
    which the second, of which a step changes a thousandth, would stand still.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        make: Make,
        *,
        in_backward: bool,
        rounding_seed: int | None,
        halves_moments: bool = False,
    ) -> None:
        super().__init__(groups, {})
        self.in_backward, self.rounding_seed, self.halves_moments = in_backward, rounding_seed, halves_moments
        self._places: dict[torch.Tensor, tuple[int, dict[str, Any], torch.optim.Optimizer]] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                inner = make([{"params": [weight], "lr": group["lr"]}])
                inner.state = self.state
                self._places[weight] = (len(self._places), group, inner)
                if in_backward:
                    weight.register_post_accumulate_grad_hook(self._update)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every weight that still has a gradient."""
        for weight in self._places:
            if weight.grad is not None:
                self._update(weight)

    @torch.no_grad()
    def _update(self, weight: torch.Tensor) -> None:
        number, group, inner = self._places[weight]
        inner.param_groups[0]["lr"] = group["lr"]
        if self.rounding_seed is None or not (self.halves_moments or weight.dtype == torch.bfloat16):
            inner.step()
        else:
            self._rounded_step(weight, number, inner)
        weight.grad = None

    def _rounded_step(self, weight: torch.Tensor, number: int, inner: torch.optim.Optimizer) -> None:
        assert weight.grad is not None and self.rounding_seed is not None
        kept, gradient = weight.data, weight.grad.float()
        slots = self.state.get(weight, {})
        times = int(slots.get(ROUNDINGS, 0))
        # Kept to be rounded into again: memory given back and taken anew for every weight is soon full of gaps.
        halves = {name: slots[name] for name in MOMENTS if self.halves_moments and name in slots}
        for name, half in halves.items():
            slots[name] = half.float()
        weight.grad = None
        weight.data = kept.float()
        weight.grad = gradient
        inner.step()
        generator = torch.Generator(kept.device)
        generator.manual_seed(seed_for(self.rounding_seed, "rounding", times, number))
        if kept.dtype == torch.bfloat16:
            round_into(kept, weight.data, generator)
        weight.grad = None
        weight.data = kept
        slots = self.state[weight]
        for name in MOMENTS if self.halves_moments else ():
            half = halves[name] if name in halves else torch.empty_like(slots[name], dtype=torch.bfloat16)
            round_into(half, slots[name], generator)
            slots[name] = half
        slots[ROUNDINGS] = times + 1


def round_into(kept: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> None:
    """Rounds float32 values into a bfloat16 tensor of their shape as `stochastically_rounded` does.

    On a CPU piece by piece, with a quarter of the draws: a fifth of the time where values are in its caches.
    """
    if kept.device.type != "cpu" or not kept.is_contiguous():
        # A GPU's generator would give other numbers piece by piece.
        kept.copy_(stochastically_rounded(values, generator))
        return
    pieces = (one.reshape(-1).split(ROUNDED_AT_ONCE) for one in (kept, values))
    for into, piece in zip(*pieces, strict=True):
        # Only what is no number can be lost by adding to its bits, and any of it makes the sum no number.
        if math.isfinite(piece.sum()):
            into.copy_(_carried(piece, _dropped_bits(piece, generator)))
        else:
            into.copy_(stochastically_rounded(piece, generator))


def _dropped_bits(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random number from 0 to 65535 for every value of a CPU's tensor, int32: four of each 64 bits."""
    random_bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
    signed = random_bits.view(torch.int16)[: values.numel()].to(torch.int32)
    return signed.add_(1 << (DROPPED_BITS - 1))


def _carried(values: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """float32 values whose bits have been added to, without those that bfloat16 drops.

    The bits of a float grow with its magnitude, so adding below the cut carries into the last kept bit by chance.
    """
    return (added + values.view(torch.int32)).bitwise_and_(-(1 << DROPPED_BITS)).view(torch.float32)


def stochastically_rounded(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 to bfloat16, up or down with the chance that makes the mean right (Gupta et al. 2015, section 3.1).

    A value halfway between two bfloat16 numbers becomes either in half of the cases, one a quarter above the lower
    the upper in a quarter. Numbers that bfloat16 has, infinities and what is no number stay what they are.
    """
    noise = torch.randint(
        0, 1 << DROPPED_BITS, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    return torch.where(values.isfinite(), _carried(values, noise), values).to(torch.bfloat16)
