"""A frozen UNet in less memory than it came in, while adapters beside it learn (Dettmers et al. 2023, QLoRA)."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from dbcli.diffusion.bases.stored_layers import (
    ConvolutionMaths,
    LinearMaths,
    StoredConvolution,
    StoredLinear,
    computed,
)

# So many neighbouring weights share one scale, the largest magnitude among them.
BLOCK = 64
# So many are packed at once, a whole number of blocks: it takes several times their memory.
PACKED_AT_ONCE = 1 << 20
# The sixteen levels of NF4: quantiles of a normal distribution, with an exact zero (QLoRA, appendix E).
NF4_LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
PACKABLE = (nn.Linear, nn.Conv2d, StoredLinear, StoredConvolution)


def shrink(unet: Any, kept: str, *, ends: Collection[str], offload: bool = False) -> None:
    """Keeps a frozen UNet's weights as `kept` says; to be called before adapters are added.

    `bf16`: all of them in bfloat16, for computing in bfloat16. `int8`, `nf4`: those of linear layers and convolutions
    in 8.5 or 4.5 bits each, everything else as it was, and so are the network's first and last layers, `ends`, named as
    a family names them; the precision is what it is anyway, on weights that are unpacked a layer at a time, forwards
    and backwards. Packed weights that are offloaded stay in RAM and follow their layer nowhere. Raises ValueError for
    another word.
    """
    if kept == "bf16":
        for parameter in unet.parameters():
            stored, rounded = parameter.data, parameter.data.to(torch.bfloat16)
            # In the memory that it has, where that is as large: gigabytes freed piece by piece leave gaps.
            parameter.data = stored.view(torch.bfloat16).copy_(rounded) if stored.dtype == torch.float16 else rounded
        return
    # Names alone, so that each layer goes as soon as its packed one is there.
    names = [
        name
        for name, module in unet.named_modules()
        if type(module) in PACKABLE
        and not any(fnmatchcase(name, end) for end in ends)
        and module.weight.numel() > BLOCK
    ]
    for name in names:
        layer = unet.get_submodule(name)
        parent, _, child = name.rpartition(".")
        packed = Packed.of(layer.weight.detach(), kept, offload=offload)
        small = SmallLinear(layer, packed) if isinstance(layer, nn.Linear) else SmallConvolution(layer, packed)
        setattr(unet.get_submodule(parent), child, small)


class Packed(nn.Module):
    """A weight of any shape as codes and one float32 scale per block; offloaded, it stays in RAM until it is needed."""

    codes: torch.Tensor
    scales: torch.Tensor
    home: torch.Tensor

    def __init__(
        self, codes: torch.Tensor, scales: torch.Tensor, shape: torch.Size, kept: str, *, offload: bool = False
    ) -> None:
        super().__init__()
        self.offload = offload
        if offload:
            self.codes, self.scales = _in_ram(codes), _in_ram(scales)
        else:
            self.register_buffer("codes", codes, persistent=False)
            self.register_buffer("scales", scales, persistent=False)
        # Empty, and where the layer is: what is offloaded does not say so, nor does a layer without a bias.
        self.register_buffer("home", torch.empty(0, device=codes.device), persistent=False)
        levels = torch.tensor(NF4_LEVELS, device=codes.device) if kept == "nf4" else None
        self.register_buffer("levels", levels, persistent=False)
        self.shape, self.kept = shape, kept

    @classmethod
    def of(cls, weight: torch.Tensor, kept: str, *, offload: bool = False) -> Packed:
        """Packs a weight. int8: the nearest of 255 even steps; nf4: the nearest of NF4's levels, two in a byte."""
        if kept not in ("int8", "nf4"):
            raise ValueError(f"weights cannot be kept as {kept!r}")
        parts = [_codes_and_scales(part, kept) for part in weight.flatten().split(PACKED_AT_ONCE)]
        codes, scales = (torch.cat(found) for found in zip(*parts, strict=True))
        return cls(codes, scales, weight.shape, kept, offload=offload)

    def unpacked(self, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
        """The weight again, as far as the codes tell it, on a device or where its layer is."""
        where = device or self.home.device
        # What is pinned stays until it is copied; on other devices than NVIDIA's nothing waits for that.
        codes, scales = (part.to(where, non_blocking=where.type == "cuda") for part in (self.codes, self.scales))
        if self.kept == "nf4":
            pairs = torch.stack([codes >> 4, codes & 15], dim=-1)
            # The type of a buffer allows None, which the levels of nf4 never are.
            relative = self.levels[pairs.int()].view(len(codes), BLOCK)  # type: ignore[index]
            blocks = relative * scales[:, None]
        else:
            blocks = codes.float() * (scales / 127)[:, None]
        return blocks.flatten()[: self.shape.numel()].view(self.shape).to(dtype)


def _codes_and_scales(values: torch.Tensor, kept: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes of a row of values, a row a block, and each block's scale, float32."""
    blocks = nn.functional.pad(values.float(), (0, -len(values) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    relative = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    if kept == "int8":
        return (relative * 127).round().to(torch.int8), scales
    levels = torch.tensor(NF4_LEVELS, device=values.device)
    nearest = torch.bucketize(relative, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    return nearest[:, ::2] * 16 + nearest[:, 1::2], scales


def _in_ram(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in RAM, pinned where a GPU can then fetch it by itself."""
    if tensor.is_meta:
        return tensor
    return tensor.cpu().pin_memory() if torch.cuda.is_available() else tensor.cpu()


class _SmallLayer(nn.Module):
    """What both kinds of layers share. `weight` is unpacked anew whenever somebody looks at it."""

    packed: Packed

    @property
    def weight(self) -> torch.Tensor:
        return self.packed.unpacked(torch.float32)

    def current_weight(self, like: torch.Tensor) -> torch.Tensor:
        return self.packed.unpacked(like.dtype, like.device)


class SmallLinear(_SmallLayer, LinearMaths):  # type: ignore[override]  # its weight is computed, not stored
    """A linear layer with a packed weight, which cannot learn."""

    def __init__(self, layer: nn.Linear, packed: Packed) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias, self.packed = layer.bias, packed

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return computed(self, rows)


class SmallConvolution(_SmallLayer, ConvolutionMaths):  # type: ignore[override]  # its weight is computed, not stored
    """A convolution with a packed weight, which cannot learn."""

    def __new__(cls, layer: Any = None, *sizes: Any, **options: Any) -> Any:
        # PEFT makes the halves of a LoRA by the class of the layer beneath; they are convolutions that learn.
        is_half = isinstance(layer, int)
        return nn.Conv2d(layer, *sizes, **options) if is_half else super().__new__(cls)

    def __init__(self, layer: nn.Conv2d, packed: Packed) -> None:
        nn.Module.__init__(self)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
            setattr(self, name, getattr(layer, name))
        self.padding_mode, self.transposed = layer.padding_mode, layer.transposed
        self.bias, self.packed = layer.bias, packed

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return computed(self, rows)
