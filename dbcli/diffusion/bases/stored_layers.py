"""Layers whose weights stay in memory as their file stores them, and compute as if they were float32.

A weight in half precision is widened for the moment in which its layer computes, and narrowed to bfloat16 or float16
only where the caller computes in that. So how weights are stored decides how much memory a model takes, and nothing of
what it gives: results are to the last bit those of the same file read into float32.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.nn.grad import conv2d_input

from dbcli.diffusion.bases.few_places import MANY_WEIGHTS, as_product, has_few_places, input_gradient

# What a type that a file may have is kept as. float16 holds every value of both 8-bit types.
KEPT = {
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
    torch.float8_e4m3fn: torch.float16,
    torch.float8_e5m2: torch.float16,
}
# A quarter of a gigabyte in float32. To widen the weights of a smaller network once takes less time than at every step.
WIDENED_BELOW = 2**26
# The first and last layers of a network are small; the type of the first is the one it is given its latents in, or,
# where it reads levels of noise, that in which these are written out.
LEFT_ALONE = ("conv_in", "conv_out", "t_embedder.mlp.0")


def kept_dtype(network: nn.Module, name: str, stored: torch.dtype) -> torch.dtype:
    """The type in which a parameter of a network is kept that a file has as `stored`."""
    owner, _, last = name.rpartition(".")
    if last != "weight" or owner.endswith(LEFT_ALONE) or type(network.get_submodule(owner)) not in LAYERS:
        return torch.float32
    return KEPT.get(stored, torch.float32)


def is_kept(network: nn.Module) -> bool:
    """Whether a network is so large that its weights are kept as they are stored."""
    return sum(parameter.numel() for parameter in network.parameters()) >= WIDENED_BELOW


def keep_as_stored(network: nn.Module, dtypes: Mapping[str, torch.dtype] | None = None) -> None:
    """Lets the layers with weights in half precision compute as if these were float32.

    `dtypes` are those of a network by name whose weights are not in memory yet.
    """
    for name, module in network.named_modules():
        kind = LAYERS.get(type(module))
        if kind is None:
            continue
        is_half = (dtypes or {}).get(f"{name}.weight", module.weight.dtype) in KEPT
        # The largest convolutions compute in a way of their own, whatever their weights are stored in.
        if is_half or (kind is StoredConvolution and module.weight.numel() >= MANY_WEIGHTS):
            module.__class__ = kind


def keep_in(network: nn.Module, dtype: torch.dtype) -> None:
    """Rounds the frozen weights that are kept in half precision to the type in which the network will compute.

    It would round them so at every pass, which takes a third of a step on a CPU. In the memory that they have.
    """
    for module in network.modules():
        if type(module) in LAYERS.values():
            weight = cast(torch.Tensor, module.weight)
            if weight.dtype in KEPT and weight.dtype != dtype and not weight.requires_grad:
                weight.data = weight.data.view(dtype).copy_(weight.data.to(dtype))


def round_to(network: nn.Module, dtype: torch.dtype) -> None:
    """Rounds every weight to a type, in place; a large network's are then kept in it."""
    is_large = is_kept(network)
    for name, parameter in network.named_parameters():
        rounded = parameter.data.to(dtype)
        kept = kept_dtype(network, name, dtype) if is_large else torch.float32
        parameter.data = rounded.to(kept)
    keep_as_stored(network)


class _Widened(threading.local):
    """Memory of each thread for one weight in another type than it is kept in, for the moment in which it is used.

    On the CPU: memory that is taken anew for every weight is cleared page by page, and what lives longer than the
    weight, an output, settles in the gaps, so that the next one finds no room in them.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def of(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The weight in a type; what this gave before is no longer valid."""
        # A fake tensor, by which memory is estimated, must not meet a real one.
        if weight.device.type != "cpu" or weight.dtype == dtype or type(weight.data) is not torch.Tensor:
            return weight.to(dtype)
        size = weight.numel() * dtype.itemsize
        if len(self._memory) < size:
            # The old one first, so that there are never two.
            self._memory = torch.empty(0, dtype=torch.uint8)
            self._memory = torch.empty(size, dtype=torch.uint8)
        return self._memory[:size].view(dtype).view(weight.shape).copy_(weight.detach())


widened = _Widened()


class WeightLayer(Protocol):
    """A layer that says what it computes of its input and a weight, and how a gradient goes back through it."""

    def current_weight(self, like: torch.Tensor) -> torch.Tensor: ...

    def output(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...

    def back(self, shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor: ...


class Remembering(torch.autograd.Function):
    """A layer's output, remembering for the backward pass the layer and not the weight it computed with."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, layer: WeightLayer) -> torch.Tensor:
        ctx.layer, ctx.shape = layer, rows.shape
        return layer.output(rows, layer.current_weight(rows))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return ctx.layer.back(ctx.shape, ctx.layer.current_weight(gradient), gradient), None


def wanted_dtype(rows: torch.Tensor) -> torch.dtype:
    """The type that a layer computes in: its caller's precision, else its input's."""
    device = rows.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype


def computed(layer: WeightLayer, rows: torch.Tensor) -> torch.Tensor:
    """The output of a layer whose weight is made for the moment."""
    rows = rows.to(wanted_dtype(rows))
    with torch.autocast(rows.device.type, enabled=False):
        output: torch.Tensor = Remembering.apply(rows, layer)
    return output


class LinearMaths(nn.Linear):
    """A linear layer's output and the gradient of its input, of a weight that is given."""

    def output(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        return nn.functional.linear(rows, weight, bias)

    def back(self, shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient of the input, of this shape, from that of the output."""
        return gradient @ weight


class ConvolutionMaths(nn.Conv2d):
    """A convolution's output and the gradient of its input, of a weight that is given."""

    def output(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        if has_few_places(self, weight, rows.shape):
            return as_product(self, rows, weight, bias)
        return nn.functional.conv2d(rows, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def back(self, shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient of the input, of this shape, from that of the output."""
        if has_few_places(self, weight, shape):
            return input_gradient(self, shape, weight, gradient)
        found: torch.Tensor = conv2d_input(
            shape, weight, gradient, self.stride, self.padding, self.dilation, self.groups
        )
        return found


class StoredLinear(LinearMaths):
    """A linear layer whose frozen weight may be in half precision."""

    def current_weight(self, like: torch.Tensor) -> torch.Tensor:
        return widened.of(self.weight, like.dtype)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) if _is_plain(self.weight, rows) else computed(self, rows)


class StoredConvolution(ConvolutionMaths):
    """A convolution whose frozen weight may be in half precision."""

    def current_weight(self, like: torch.Tensor) -> torch.Tensor:
        return widened.of(self.weight, like.dtype)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if not _is_plain(self.weight, rows):
            return computed(self, rows)
        if not has_few_places(self, self.weight, rows.shape):
            return super().forward(rows)
        dtype = wanted_dtype(rows)
        with torch.autocast("cpu", enabled=False):
            return self.output(rows.to(dtype), self.weight.to(dtype))


class StoredEmbedding(nn.Embedding):
    """A table whose frozen rows may be in half precision; what it gives is float32."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = super().forward(ids)
        return rows if self.weight.requires_grad else rows.float()


def _is_plain(weight: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether a weight learns, which needs torch's own gradient, or is in the right type already."""
    return weight.requires_grad or weight.dtype == wanted_dtype(rows)


LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: StoredLinear,
    nn.Conv2d: StoredConvolution,
    nn.Embedding: StoredEmbedding,
}


@contextmanager
def shown_as_float32(networks: Iterable[nn.Module], *, with_values: bool = False) -> Iterator[None]:
    """Inside it the kept weights of networks are float32, for PEFT, which gives new layers the type of those beneath.

    They take no memory and are all zero, except `with_values`.
    """
    layers: list[Any] = [one for network in networks for one in network.modules() if type(one) in LAYERS.values()]
    kept = [layer.weight.data for layer in layers]
    for layer, weight in zip(layers, kept, strict=True):
        nothing = torch.zeros((), device=weight.device).expand(weight.shape)
        layer.weight.data = weight.float() if with_values else nothing
    try:
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.weight.data = weight
