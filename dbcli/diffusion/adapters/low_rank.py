"""W x + (alpha / rank) B A x as one step of the graph: PEFT's linear layer with fewer and better shaped products.

PEFT's own forward takes five operations a layer and leaves eight steps to go back through, most of them as large as the
layer's output. And a product only `rank` columns wide is several times slower than the same product `rank` rows high,
which is why matrices are transposed here and there.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear


class _LowRankSum(torch.autograd.Function):
    """output + scale (rows A^T) B^T, added in place."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, rows: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """output `[N, out]`, rows `[N, in]`, down (A) `[rank, in]`, up (B) `[out, rank]`, all of one dtype."""
        narrow = down @ rows.T
        ctx.mark_dirty(output)
        ctx.save_for_backward(rows, down, up, narrow)
        ctx.scale = scale
        return output.addmm_(narrow.T, up.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        rows, down, up, narrow = ctx.saved_tensors
        to_narrow = (ctx.scale * up.T) @ gradient.T
        to_rows = to_narrow.T @ down if ctx.needs_input_grad[1] else None
        to_up = (narrow @ gradient).T * ctx.scale
        return gradient, to_rows, to_narrow @ rows, to_up, None


class LowRankLinear(Linear):
    """A linear layer and its adapters; DoRA and whatever else is no plain sum take PEFT's own forward."""

    def forward(self, rows: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        if self.disable_adapters or self.merged or self.lora_variant or rest or named:
            return super().forward(rows, *rest, **named)  # type: ignore[no-any-return]
        # A tensor of its own: backwards through an addition to a view, the whole is copied.
        output = self.base_layer(rows.reshape(-1, rows.shape[-1]))
        for name in self.active_adapters:
            if name in self.lora_A:
                output = self._with(name, output, rows)
        return output.view(*rows.shape[:-1], -1)

    def _with(self, name: str, output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        # Dropout sees the batch as it is: processes that share one share its masks by row.
        seen = self.lora_dropout[name](rows).reshape(-1, rows.shape[-1]).to(output.dtype)
        down, up = (part[name].weight.to(output.dtype) for part in (self.lora_A, self.lora_B))
        with torch.autocast(output.device.type, enabled=False):
            return _LowRankSum.apply(output, seen, down, up, self.scaling[name])  # type: ignore[no-any-return]
