"""Layers of a network with LoKr or LoHa beside them, trained and drawn with.

PEFT's own layers of both kinds build the whole change of a weight in every pass and keep it until the backward pass, as
many bytes as the frozen weight itself; they draw from the global random state, and hold no factors of other shapes than
those they would make. These keep the factors and their input alone. What they give is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.utils.checkpoint import checkpoint

from dbcli.diffusion.formats.factor_names import FACTORS
from dbcli.diffusion.formats.lycoris import (
    ProductKind,
    ProductLayer,
    kind_of_factors,
    matrices,
    product,
)

# The factors of a new layer that are 0, so that it changes nothing yet.
ZERO_FACTORS = frozenset({"lokr_w2", "lokr_w2_b", "hada_w2_a"})


class ProductModule(nn.Module, BaseTunerLayer):
    """A linear layer or convolution plus scale · (product of factors); the factors are its parameters, by their names.

    `dropout` is the share of the addition's inputs that a training step leaves out.
    """

    def __init__(self, base_layer: nn.Module, layer: ProductLayer, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.base_layer, self.alpha, self.scale = base_layer, layer.alpha, layer.scale
        self.dropout = nn.Dropout(dropout)
        for name, factor in layer.factors.items():
            self.register_parameter(name, nn.Parameter(factor))

    @property
    def factors(self) -> dict[str, torch.Tensor]:
        """The factors as they are now."""
        return {name: factor for name in FACTORS if (factor := self._parameters.get(name)) is not None}

    def finished_layer(self) -> ProductLayer:
        """The addition as it is now, copied to the CPU."""
        factors = {name: factor.detach().cpu().clone() for name, factor in self.factors.items()}
        return ProductLayer(factors, self.alpha)

    def enable_adapters(self, enabled: bool) -> None:
        """Takes the addition out of the layer's sum, or puts it back."""
        self._disable_adapters = not enabled

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the addition to the weight beneath it, in that weight's type."""
        weight: Any = self.base_layer.weight
        with torch.no_grad():
            weight.data += self.scale * product(self.factors, weight.shape)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base_layer(rows)
        if self._disable_adapters:
            return result
        factors = self.factors
        if not torch.is_autocast_enabled(rows.device.type):
            rows = rows.to(next(iter(factors.values())).dtype)
        rows = self.dropout(rows)
        if not torch.is_grad_enabled():
            return result + self._addition(rows, *factors.values()).to(result.dtype)
        # What lies between input and sum is as large as the outputs, or as the weight, and takes a moment to make.
        addition = checkpoint(self._addition, rows, *factors.values(), use_reentrant=False, preserve_rng_state=False)
        return result + addition.to(result.dtype)

    def _addition(self, rows: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        factors = dict(zip(self.factors, values, strict=True))
        shape = weight_shape(self.base_layer)
        if isinstance(self.base_layer, nn.Linear):
            return _linear(rows, factors, self.scale, shape)
        return _convolution(rows, factors, self.scale, shape, self.base_layer)


def weight_shape(layer: Any) -> tuple[int, ...]:
    """The shape of a linear layer's or convolution's weight, of a packed one's too without unpacking it."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size


def _linear(
    rows: torch.Tensor, factors: Mapping[str, torch.Tensor], scale: float, shape: Sequence[int]
) -> torch.Tensor:
    if kind_of_factors(factors) == "loha":
        halves = _low_rank(factors, shape)
        if halves is None:
            return nn.functional.linear(rows, scale * product(factors, shape))
        up, down = halves
        return nn.functional.linear(nn.functional.linear(rows, down), scale * up)
    first, second = matrices(factors, ())
    # (w1 ⊗ w2) x is w1 X w2ᵀ, where X has the inputs in rows of as many as w2 takes.
    groups = rows.unflatten(-1, (first.shape[1], -1))
    if _mixes_first(first, second):
        return nn.functional.linear(torch.matmul(scale * first, groups), second).flatten(-2)
    return torch.matmul(scale * first, nn.functional.linear(groups, second)).flatten(-2)


def _low_rank(factors: Mapping[str, torch.Tensor], shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """LoHa's product as one of `[out, rank²]` and `[rank², in]`; None where that is no less work than the whole.

    (a1 b1) ∘ (a2 b2) has the products of any column of a1 with any of a2 times those of the rows of b1 and b2.
    """
    rank, inputs = len(factors["hada_w1_b"]), math.prod(shape[1:])
    if "hada_t1" in factors or rank**2 * (shape[0] + inputs) >= shape[0] * inputs:
        return None
    up = factors["hada_w1_a"][:, :, None] * factors["hada_w2_a"][:, None, :]
    down = factors["hada_w1_b"][:, None] * factors["hada_w2_b"][None, :]
    return up.flatten(1), down.flatten(0, 1)


def _mixes_first(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether less lies between the two products where w1 is the first to be multiplied."""
    return first.shape[0] * second.shape[1] < first.shape[1] * second.shape[0]


def _convolution(
    rows: torch.Tensor, factors: Mapping[str, torch.Tensor], scale: float, shape: Sequence[int], layer: Any
) -> torch.Tensor:
    how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    is_loha = kind_of_factors(factors) == "loha"
    halves = _low_rank(factors, shape) if is_loha and layer.groups == 1 else None
    if halves is not None:
        up, down = halves
        ranks = nn.functional.conv2d(rows, down.unflatten(1, tuple(shape[1:])), **how)
        return nn.functional.conv2d(ranks, (scale * up)[..., None, None])
    if is_loha or layer.groups != 1:
        return nn.functional.conv2d(rows, scale * product(factors, shape), groups=layer.groups, **how)
    first, second = matrices(factors, shape[2:])

    def mixed(images: torch.Tensor) -> torch.Tensor:
        # One product an image: `matmul` would copy all of them to make it a single one.
        groups = images.reshape(len(rows), first.shape[1], -1)
        return torch.bmm((scale * first).expand(len(rows), -1, -1), groups)

    if _mixes_first(first, second):
        groups = mixed(rows).reshape(-1, second.shape[1], *rows.shape[2:])
        images = nn.functional.conv2d(groups, second, **how)
        return images.reshape(len(rows), -1, *images.shape[2:])
    images = nn.functional.conv2d(rows.unflatten(1, (first.shape[1], -1)).flatten(0, 1), second, **how)
    return mixed(images).reshape(len(rows), -1, *images.shape[2:])


def wrap(network: nn.Module, path: str, layer: ProductLayer, *, dropout: float = 0.0) -> None:
    """Puts an addition beside a layer of a network, on that layer's device, in float32."""
    parent, _, child = path.rpartition(".")
    beneath: Any = network.get_submodule(path)
    tensors = [*beneath.parameters(), *beneath.buffers()]
    found = layer.each(lambda factor: factor.to(tensors[0].device, torch.float32, copy=True))
    setattr(network.get_submodule(parent), child, ProductModule(beneath, found, dropout=dropout))


def new_layer(
    kind: ProductKind, shape: Sequence[int], *, rank: int, alpha: float, factor: int, both: bool, tucker: bool
) -> ProductLayer:
    """A new addition for a weight `[out, in]` or `[out, in, k, k]` that changes nothing yet, begun as LyCORIS 4 does.

    LoKr divides outputs and inputs by `factor` (see `divided`); its larger matrix is whole where `rank` is at least
    half of its larger side, its smaller one is whole unless `both` are to have a rank. `tucker` puts a core between the
    factors of convolutions whose kernel is larger than 1. Values come from the global random state.
    """
    outputs, inputs, kernel = shape[0], shape[1], tuple(shape[2:])
    has_core = tucker and any(side != 1 for side in kernel)
    if kind == "loha":
        factors = {
            **_factored("hada_w1", outputs, inputs, kernel, rank, "hada_t1" if has_core else ""),
            **_factored("hada_w2", outputs, inputs, kernel, rank, "hada_t2" if has_core else ""),
        }
        spread = {"hada_w1_b": 1.0, "hada_w2_b": 1.0}
        for name, tensor in factors.items():
            nn.init.normal_(tensor, std=0.0 if name in ZERO_FACTORS else spread.get(name, 0.1))
        return ProductLayer(factors, alpha)
    (a, c), (b, d) = divided(outputs, factor), divided(inputs, factor)
    first = _factored("lokr_w1", a, b, (), rank) if both and rank < max(a, b) / 2 else {"lokr_w1": torch.empty(a, b)}
    second = (
        _factored("lokr_w2", c, d, kernel, rank, "lokr_t2" if has_core else "")
        if rank < max(c, d) / 2
        else {"lokr_w2": torch.empty(c, d, *kernel)}
    )
    for name, tensor in (first | second).items():
        if name in ZERO_FACTORS:
            nn.init.zeros_(tensor)
        else:
            nn.init.kaiming_uniform_(tensor, a=math.sqrt(5))
    return ProductLayer(first | second, alpha)


def _factored(
    name: str, outputs: int, inputs: int, kernel: Sequence[int], rank: int, core: str = ""
) -> dict[str, torch.Tensor]:
    if core:
        return {
            f"{name}_a": torch.empty(rank, outputs),
            f"{name}_b": torch.empty(rank, inputs),
            core: torch.empty(rank, rank, *kernel),
        }
    return {f"{name}_a": torch.empty(outputs, rank), f"{name}_b": torch.empty(rank, inputs * math.prod(kernel))}


def divided(size: int, factor: int) -> tuple[int, int]:
    """A size as a product, the smaller number first: that by `factor` where it divides, else by the largest below it.

    With -1, the two numbers nearest to each other. 320 by 8 is (8, 40), by -1 (16, 20).
    """
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    most = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    smaller = next(one for one in range(most, 0, -1) if size % one == 0)
    return smaller, size // smaller
