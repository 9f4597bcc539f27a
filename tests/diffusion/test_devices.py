"""Networks wait in RAM while a device has other work, and come back."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.devices import idle_in_training, offload, on_device

GPU, MACHINE = torch.device("cuda"), torch.device("cpu")


class Movable:
    """As much of a network as is moved: it needs no GPU to be on one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def parameters(self) -> Iterator[Any]:
        yield SimpleNamespace(device=self.device)

    def to(self, device: torch.device | str) -> None:
        self.device = torch.device(device)


def test_what_rests_goes_to_work_and_back() -> None:
    resting, busy = Movable(MACHINE), Movable(GPU)
    with on_device(GPU, resting, busy):  # type: ignore[arg-type]
        assert (resting.device, busy.device) == (GPU, GPU)
    assert (resting.device, busy.device) == (MACHINE, GPU)
    offload(busy)  # type: ignore[arg-type]
    assert busy.device == MACHINE


def test_an_error_at_work_does_not_keep_a_network_from_its_rest() -> None:
    network = Movable(MACHINE)
    with pytest.raises(ValueError), on_device(GPU, network):  # type: ignore[arg-type]
        raise ValueError
    assert network.device == MACHINE


def test_where_there_is_no_gpu_not_one_weight_is_copied() -> None:
    network = nn.Linear(3, 3)
    places = [parameter.data_ptr() for parameter in network.parameters()]
    with on_device(MACHINE, network):
        offload(network)
    assert places == [parameter.data_ptr() for parameter in network.parameters()]


def test_what_rests_is_what_no_step_needs() -> None:
    parts = {name: SimpleNamespace(is_unloaded=name == "three") for name in ("one", "two", "three")}
    encoders = {"one": nn.Linear(5, 1), "two": nn.Linear(4, 1)}
    family = SimpleNamespace(parts=parts)
    base: Any = SimpleNamespace(vae=nn.Linear(9, 1), encoders=encoders, family=family)
    assert idle_in_training(base, trains_text=True) == [base.vae]
    assert idle_in_training(base, trains_text=False) == [base.vae, *base.encoders.values()]
    # One that rests is not in memory at all.
    base.encoders = {**encoders, "three": nn.Linear(3, 1)}
    assert idle_in_training(base, trains_text=False) == [base.vae, *encoders.values()]
