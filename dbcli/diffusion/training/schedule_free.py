"""Schedule-free AdamW by torch's fused kernel: the steps of the package `schedulefree`, with half of the reading."""

from typing import Any

import torch
from schedulefree import AdamWScheduleFree
from torch.optim.adamw import adamw


class FusedAdamWScheduleFree(AdamWScheduleFree):  # type: ignore[misc]
    """Schedule-free AdamW (Defazio et al. 2024, "The road less scheduled", algorithm 1), begun in training mode.

    A weight holds y, between the iterate z and the average x. The package updates y without ever making x, in eight
    passes over memory; here y becomes x in its own memory, z takes AdamW's step without a first moment, and x goes to
    the new y. State, groups and results are those of the package, but for float32's rounding.
    """

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.train()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            weights = [one for one in group["params"] if one.grad is not None]
            share = _share_of_newest(group)
            if weights:
                self._update(group, weights, share)
            group["k"] += 1

    def _update(self, group: dict[str, Any], weights: list[torch.Tensor], share: float) -> None:
        beta1, beta2 = group["betas"]
        rate, decay = group["lr"], group["weight_decay"]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["z"] = weight.clone(memory_format=torch.preserve_format)
                self.state[weight]["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        iterates = [self.state[weight]["z"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        # x = y + (1 - 1 / beta1) (z - y)
        torch._foreach_lerp_(weights, iterates, 1 - 1 / beta1)
        if decay:
            # Weights decay at y = beta1 x + (1 - beta1) z, and the kernel knows of z alone.
            torch._foreach_add_(iterates, weights, alpha=-rate * decay * beta1)
        adamw(
            iterates,
            gradients,
            # With a beta1 of 0 the kernel writes the gradient itself as its mean.
            exp_avgs=gradients,
            exp_avg_sqs=[self.state[weight]["exp_avg_sq"] for weight in weights],
            max_exp_avg_sqs=[],
            state_steps=list(torch.full((len(weights),), float(group["k"]), device=weights[0].device).unbind()),
            fused=True,
            amsgrad=False,
            beta1=0.0,
            beta2=beta2,
            lr=rate,
            weight_decay=decay * (1 - beta1),
            eps=group["eps"],
            maximize=False,
        )
        # x' = (1 - share) x + share z', and y' = beta1 x' + (1 - beta1) z'.
        torch._foreach_lerp_(weights, iterates, 1 - beta1 * (1 - share))


def _share_of_newest(group: dict[str, Any]) -> float:
    """The share of this step's iterate in the average, where steps count by the square of the largest rate so far."""
    group["scheduled_lr"] = group["lr"]  # what the package has its groups report
    group["lr_max"] = max(group["lr"], group["lr_max"])
    weight: float = group["lr_max"] ** group["weight_lr_power"]
    group["weight_sum"] += weight
    return weight / group["weight_sum"] if group["weight_sum"] else 0.0
