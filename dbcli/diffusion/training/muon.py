"""Muon where a device does not compute in bfloat16: torch's steps, with updates made orthogonal in float32."""

import math
from typing import Any

import torch


class Float32Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024), its steps as long as AdamW's (Liu et al. 2025, section 2.2).

    torch's own makes every update orthogonal in bfloat16, which a CPU without instructions for it only imitates: that
    took 30 to 50 times as long as in float32. State and groups are those of torch's; its results differ by bfloat16's
    rounding.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing here passes a closure
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(group, weight, weight.grad)

    def _update(self, group: dict[str, Any], weight: torch.Tensor, gradient: torch.Tensor) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        turned = orthogonal(direction.float(), group["ns_coefficients"], group["ns_steps"], group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(turned, alpha=-0.2 * group["lr"] * math.sqrt(max(weight.shape)))


def orthogonal(matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> torch.Tensor:
    """The matrix with singular values near 1, `[m, n]` float32: quintic Newton-Schulz steps (Jordan et al. 2024)."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
