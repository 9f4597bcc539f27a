"""LoRA layers that PEFT does not have: begun elsewhere than at zero without a change of the base, or with ranks by
timestep.

PEFT's PiSSA takes the principal part out of the frozen weight, so that base and file no longer fit other programs, and
knows no convolutions. Here the base stays: what the layer began with is taken off its addition.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from dbcli.diffusion.adapters.initial_values import Initialisation, InitialValues, initial_values
from dbcli.diffusion.adapters.product_layers import weight_shape
from dbcli.diffusion.bases.pass_timestep import Timestep, timestep_of
from dbcli.diffusion.formats.lora import LoraLayer
from dbcli.diffusion.formats.timestep_ranks import TimestepRanks
from dbcli.errors import UnsupportedFile


class LoraModule(nn.Module, BaseTunerLayer):
    """A linear layer or convolution plus strength · (B diag(E) A - B0 diag(E0) A0), the second being its start.

    A, E and B are its parameters. With `timestep` and `schedule` its ranks come into force by timestep. `dropout` is
    the share of the addition's inputs that a training step leaves out.
    """

    start_down: torch.Tensor
    start_up: torch.Tensor
    last_timesteps: torch.Tensor | None

    def __init__(
        self,
        base_layer: nn.Module,
        values: InitialValues,
        strength: float,
        *,
        keeps_start: bool,
        dropout: float = 0.0,
        timestep: Timestep | None = None,
        schedule: TimestepRanks | None = None,
    ) -> None:
        super().__init__()
        self.base_layer, self.strength, self.dropout = base_layer, strength, nn.Dropout(dropout)
        self.schedule = schedule
        # A list, so that what it holds is no part of this layer.
        self._timestep = [] if timestep is None else [timestep]
        # In rows, as files have them: torch's fused optimisers pair a weight with its moments by their place in memory.
        self.lora_A = nn.Parameter(values.down.clone(memory_format=torch.contiguous_format))
        self.lora_B = nn.Parameter(values.up.clone(memory_format=torch.contiguous_format))
        self.lora_E = None if values.scales is None else nn.Parameter(values.scales.clone())
        start = values if keeps_start else InitialValues(values.down[:0], None, values.up[:, :0])
        self.register_buffer("start_down", start.down.clone(), persistent=False)
        self.register_buffer("start_up", _scaled(start.up, start.scales), persistent=False)
        last = None
        if schedule is not None:
            rank = len(values.down)
            last = schedule.last_timesteps(rank)
            last = torch.cat([last, last]) if keeps_start else last
            last = last.to(values.down.device)
        self.register_buffer("last_timesteps", last, persistent=False)

    def finished_layer(self) -> LoraLayer:
        """The addition as it is now, of twice the rank where a start is taken off; copied to the CPU."""
        down, up = (half.detach().float().cpu().clone() for half in self._halves())
        kernel = weight_shape(self.base_layer)[2:]
        schedule = self.schedule
        if schedule is not None and len(self.start_down):
            schedule = TimestepRanks(schedule.least, schedule.timesteps, halves=True)
        return LoraLayer(
            down.reshape(len(down), -1, *kernel),
            up.reshape(*up.shape, *([1] * len(kernel))),
            self.strength * len(down),
            schedule=schedule,
        )

    def enable_adapters(self, enabled: bool) -> None:
        """Takes the addition out of the layer's sum, or puts it back."""
        self._disable_adapters = not enabled

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the addition to the weight beneath it. Raises UnsupportedFile where it depends on the timestep."""
        refuse_schedule(self.schedule)
        weight: Any = self.base_layer.weight
        down, up = self._halves()
        with torch.no_grad():
            weight.data += self.strength * (up @ down).reshape(weight.shape)

    def _halves(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the inputs and then the ranks are multiplied by, `[rank, in]` and `[out, rank]`, the start's behind."""
        down = torch.cat([self.lora_A, self.start_down])
        return down, torch.cat([_scaled(self.lora_B, self.lora_E), -self.start_up], dim=1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base_layer(rows)
        if self._disable_adapters:
            return result
        if not torch.is_autocast_enabled(rows.device.type):
            rows = rows.to(self.lora_A.dtype)
        return result + self._addition(self.dropout(rows)).to(result.dtype)

    def _addition(self, rows: torch.Tensor) -> torch.Tensor:
        down, up = self._halves()
        layer: Any = self.base_layer
        if isinstance(layer, nn.Linear):
            ranks = nn.functional.linear(rows, down)
            in_force = self._in_force(rows)
            if in_force is not None:
                ranks = ranks * in_force.reshape(-1, *([1] * (rows.ndim - 2)), len(down))
            return nn.functional.linear(ranks, self.strength * up)
        kernel = down.reshape(len(down), -1, *layer.kernel_size)
        how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        ranks = nn.functional.conv2d(rows, kernel, **how)
        in_force = self._in_force(rows)
        if in_force is not None:
            ranks = ranks * in_force.reshape(-1, len(down), 1, 1)
        return nn.functional.conv2d(ranks, (self.strength * up)[..., None, None])

    def _in_force(self, rows: torch.Tensor) -> torch.Tensor | None:
        """1 for a rank that is in force for a row and 0 for one that is not, `[rows, rank]` or `[1, rank]`."""
        if not self._timestep or self.last_timesteps is None:
            return None
        now = self._timestep[0].now.to(rows.device).reshape(-1, 1)
        return (now <= self.last_timesteps).to(rows.dtype)


def _scaled(up: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
    return up if scales is None else up * scales


def refuse_schedule(schedule: TimestepRanks | None) -> None:
    """Raises UnsupportedFile for an addition that no one change of the weights amounts to."""
    if schedule is not None:
        raise UnsupportedFile(
            "This is a T-LoRA: which of its ranks are in force depends on the timestep, so it is no change of the base "
            "that could be merged, mixed with others or drawn elsewhere.",
            hint="dreambooth generate draws with it alone; lora.least_rank=0 trains one for other programs",
        )


def wrap_new(
    network: nn.Module,
    path: str,
    kind: Initialisation,
    *,
    rank: int,
    strength: float,
    dropout: float,
    schedule: TimestepRanks | None,
) -> None:
    """Puts a new LoRA layer beside a layer of a network."""
    beneath: Any = network.get_submodule(path)
    # Only the principal part is one of the weight's values; a packed weight shows none.
    outputs, *inputs = weight_shape(beneath)
    # (Copied: to the last bit a decomposition depends on where in memory a matrix begins.)
    seen = (
        beneath.weight.detach().flatten(1).clone() if kind == "pissa" else _shaped(beneath, outputs, math.prod(inputs))
    )
    values = initial_values(kind, seen, rank, strength)
    timestep = None if schedule is None else timestep_of(network)
    module = LoraModule(
        beneath,
        values,
        strength,
        keeps_start=kind != "zero",
        dropout=dropout,
        timestep=timestep,
        schedule=schedule,
    )
    _put(network, path, module)


def wrap_finished(network: nn.Module, path: str, layer: LoraLayer, *, dropout: float) -> None:
    """Puts a finished LoRA layer with a schedule beside a layer of a network, on that layer's device."""
    beneath: Any = network.get_submodule(path)
    device = next(iter([*beneath.parameters(), *beneath.buffers()])).device
    values = InitialValues(layer.down.flatten(1).float().to(device), None, layer.up.flatten(1).float().to(device))
    module = LoraModule(
        beneath,
        values,
        layer.scale,
        keeps_start=False,
        dropout=dropout,
        timestep=timestep_of(network),
        schedule=layer.schedule,
    )
    _put(network, path, module)


def _shaped(layer: nn.Module, outputs: int, inputs: int) -> torch.Tensor:
    """No values, but a shape and the layer's device."""
    device = next(iter([*layer.parameters(), *layer.buffers()])).device
    return torch.empty(outputs, inputs, device=device)


def _put(network: nn.Module, path: str, module: LoraModule) -> None:
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
