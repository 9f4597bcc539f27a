"""Optimisers and learning-rate schedules by name, and their state as plain tensors.

One takes one weight after the other, so that what it needs for a step never exists for all at once. Weights in bfloat16
go on learning by it: rounded up or down by chance, so that small steps are not all lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from dbcli.diffusion.noise import seed_for
from dbcli.errors import ConfigError
from dbcli.hints import installing

# Our name -> diffusers' name of a schedule with warm-up.
SCHEDULES = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine-restarts": "cosine_with_restarts",
}
# Beside the inner optimiser's own slots: how often a weight was rounded, which tells the noise of the next time.
ROUNDINGS = "roundings"
DROPPED_BITS = 16  # a float32 has sixteen more bits behind a bfloat16's last
# AdamW with moments in bfloat16, and its moments' names.
HALVED, MOMENTS = "adamw16bit", ("exp_avg", "exp_avg_sq")
# So many values are rounded at once, as it takes several times their memory.
ROUNDED_AT_ONCE = 1 << 20
Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Optimisation:
    """How weights follow their gradients. Rates are per step, betas and decay as in AdamW (Loshchilov 2019).

    part_rates are the rates of the parts of the model that have their own, by name.

    schedule_cycles is that of cosine-restarts; polynomial goes from 1 to schedule_end as (1 - t)^schedule_power.

    fused_backward and stochastic_rounding take the weights one by one (OptimizerInBackward); seed is the rounding's.
    """

    learning_rate: float
    part_rates: Mapping[str, float] = field(default_factory=dict)
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    schedule: str = "constant"
    schedule_cycles: int = 3
    schedule_power: float = 2.0
    schedule_end: float = 0.0
    warmup_steps: int = 0
    gradient_clip: float = 1.0
    fused_backward: bool = False
    stochastic_rounding: bool = False
    seed: int = 0


def _adamw(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, betas=(plan.beta1, plan.beta2), eps=plan.epsilon, weight_decay=plan.weight_decay, fused=True
    )


def _adamw_8bit(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    try:
        import bitsandbytes  # type: ignore[import-not-found]  # an optional package
    except ImportError as fault:
        raise ConfigError(
            "train.optimizer is adamw8bit, but bitsandbytes is not installed.",
            hint=installing("bitsandbytes"),
        ) from fault
    optimiser: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        groups, betas=(plan.beta1, plan.beta2), eps=plan.epsilon, weight_decay=plan.weight_decay
    )
    return optimiser


def _adafactor(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    from transformers import optimization

    # The rate is per step, as AdamW's is, and not relative to each weight's size: one recipe serves both.
    make: Any = optimization.Adafactor
    optimiser: torch.optim.Optimizer = make(
        groups, weight_decay=plan.weight_decay, scale_parameter=False, relative_step=False
    )
    return optimiser


OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], Optimisation], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    HALVED: _adamw,
    "adamw8bit": _adamw_8bit,
    "adafactor": _adafactor,
}


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
            _round_into(kept, weight.data, generator)
        weight.grad = None
        weight.data = kept
        slots = self.state[weight]
        for name in MOMENTS if self.halves_moments else ():
            half = halves[name] if name in halves else torch.empty_like(slots[name], dtype=torch.bfloat16)
            _round_into(half, slots[name], generator)
            slots[name] = half
        slots[ROUNDINGS] = times + 1


def _round_into(kept: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> None:
    """Rounds float32 values stochastically into a bfloat16 tensor of their shape."""
    if kept.device.type != "cpu" or not kept.is_contiguous():
        # A GPU's generator would give other numbers piece by piece.
        kept.copy_(stochastically_rounded(values, generator))
        return
    pieces = (one.reshape(-1).split(ROUNDED_AT_ONCE) for one in (kept, values))
    for into, piece in zip(*pieces, strict=True):
        into.copy_(stochastically_rounded(piece, generator))


def stochastically_rounded(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 to bfloat16, up or down with the chance that makes the mean right (Gupta et al. 2015, section 3.1).

    A value halfway between two bfloat16 numbers becomes either in half of the cases, one a quarter above the lower
    the upper in a quarter. Numbers that bfloat16 has, infinities and what is no number stay what they are.
    """
    bits = values.view(torch.int32)
    noise = torch.randint(
        0, 1 << DROPPED_BITS, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    # The bits of a float grow with its magnitude, so adding below the cut carries into the last kept bit by chance.
    rounded = ((bits + noise) & -(1 << DROPPED_BITS)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def build_optimiser(tensors: Mapping[str, torch.nn.Parameter], plan: Optimisation) -> torch.optim.Optimizer:
    """An optimiser with a group for every part that learns, at its own rate; a tensor's name begins with its part's."""
    parts: dict[str, list[torch.nn.Parameter]] = {}
    for name, tensor in tensors.items():
        parts.setdefault(name.partition(".")[0], []).append(tensor)
    rates = {part: plan.part_rates.get(part, plan.learning_rate) for part in parts}
    groups: list[dict[str, Any]] = [
        {"params": members, "lr": rates[part], "base_rate": rates[part]} for part, members in parts.items()
    ]
    make = OPTIMISERS[plan.optimizer]
    halves = plan.optimizer == HALVED
    if not (plan.fused_backward or plan.stochastic_rounding or halves):
        return make(groups, plan)
    return OptimizerInBackward(
        groups,
        lambda one: make(one, plan),
        in_backward=plan.fused_backward,
        rounding_seed=plan.seed if plan.stochastic_rounding or halves else None,
        halves_moments=halves,
    )


def rate_factor(plan: Optimisation, steps: int) -> Callable[[int], float]:
    """The schedule as a function of the step: what the learning rates are multiplied by, 1.0 at full rate."""
    from diffusers.optimization import get_polynomial_decay_schedule_with_warmup, get_scheduler

    # Only the shape is wanted. The library reads a rate from its optimiser, which none of ours has at 1.0, and its own
    # step counter would be one more thing to save and restore.
    bare = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    length: dict[str, Any] = {"num_warmup_steps": plan.warmup_steps, "num_training_steps": steps}
    if plan.schedule == "polynomial":
        schedule = get_polynomial_decay_schedule_with_warmup(
            bare, **length, lr_end=plan.schedule_end, power=plan.schedule_power
        )
    else:
        schedule = get_scheduler(SCHEDULES[plan.schedule], bare, **length, num_cycles=plan.schedule_cycles)
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return factor


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, torch.Tensor]:
    """The optimiser's state as flat tensors "<parameter>|<slot>"; names maps id(parameter) to its name."""
    flat: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for parameter, slots in optimiser.state.items():
        for slot, value in slots.items():
            tensor = value if isinstance(value, torch.Tensor) else _number(value)
            tensor = tensor.detach().cpu()
            # 8-bit states of all weights share one table of levels, which no file can hold twice.
            shared = tensor.data_ptr() in seen
            seen.add(tensor.data_ptr())
            flat[f"{names[id(parameter)]}|{slot}"] = tensor.clone() if shared else tensor
    return flat


def _number(value: float) -> torch.Tensor:
    """A plain number of an optimiser's state; a count stays a count."""
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)


def load_optimiser_tensors(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.nn.Parameter], flat: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what optimiser_tensors took out, on each parameter's own device; what was there before goes."""
    optimiser.state.clear()
    for key, value in flat.items():
        name, slot = key.rsplit("|", 1)
        parameter = tensors[name]
        if value.dtype in (torch.float64, torch.int64) and value.ndim == 0:
            optimiser.state[parameter][slot] = value.item()
        else:
            optimiser.state[parameter][slot] = value.clone().to(parameter.device)
