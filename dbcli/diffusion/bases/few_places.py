"""Convolutions with many weights and few places to put them, as one matrix product.

On a CPU a convolution brings its weights into another order at every call. Where each is used in a few places only,
as in the middle of Stable Diffusion's UNet, that takes several times as long as to compute: 1,280 to 1,280 channels of
2 rows of 4 × 4, float32, two cores (Intel Xeon, torch 2.14): 27 ms, and 8 ms as a product; 8 × 8: 36 and 20 ms;
backwards 30 and 11, 38 and 25. With fewer weights or more places the convolution is the faster one.
"""

from __future__ import annotations

from math import prod

import torch
from torch import nn
from torch.nn import functional

# Weights from which, and places (of all rows together) up to which the product is the faster one.
MANY_WEIGHTS, FEW_PLACES = 1 << 23, 128


def has_few_places(layer: nn.Conv2d, weight: torch.Tensor, shape: torch.Size) -> bool:
    """Whether a product takes less time than the convolution of rows of a shape [N, C, H, W]; on a GPU never."""
    return (
        weight.device.type == "cpu"
        and len(shape) == 4
        and weight.numel() >= MANY_WEIGHTS
        and layer.groups == 1
        and not isinstance(layer.padding, str)
        and layer.padding_mode == "zeros"
        and shape[0] * prod(_places(layer, shape)) <= FEW_PLACES
    )


def as_product(layer: nn.Conv2d, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The convolution of rows [N, C, H, W] with a weight [O, C, k, k] of their type, [N, O, H', W']."""
    patches = functional.unfold(rows, layer.kernel_size, layer.dilation, _padding(layer), layer.stride)
    # All rows' places side by side, so that the weight is read once.
    side_by_side = patches.transpose(0, 1).reshape(patches.shape[1], -1)
    product = weight.reshape(weight.shape[0], -1) @ side_by_side
    output = product.view(len(product), len(rows), *_places(layer, rows.shape)).transpose(0, 1)
    return output if bias is None else output + bias.view(-1, 1, 1)


def input_gradient(layer: nn.Conv2d, shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of `as_product`'s rows, of `shape`, from that of its output [N, O, H', W']."""
    # A row a place: the other way round, the transposed weight is read the slow way.
    places = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
    patches = (places @ weight.reshape(weight.shape[0], -1)).view(shape[0], -1, weight[0].numel()).transpose(1, 2)
    # Nine patches meet in a place; their sum is rounded once.
    found = functional.fold(
        patches.float(), shape[2:], layer.kernel_size, layer.dilation, _padding(layer), layer.stride
    )
    return found.to(gradient.dtype)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)  # has_few_places says no to a padding by name
    return layer.padding


def _places(layer: nn.Conv2d, shape: torch.Size) -> tuple[int, ...]:
    """Height and width of the output for rows of a shape."""
    sides = zip(shape[2:], layer.kernel_size, layer.stride, _padding(layer), layer.dilation, strict=True)
    return tuple((side + 2 * pad - dil * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, dil in sides)
