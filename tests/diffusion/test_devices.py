"""Networks wait in RAM while a device has other work, and come back."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dbcli.diffusion.devices import autocast, idle_in_training, offload, on_device, precision_on

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


def test_a_precision_that_is_named_is_taken_everywhere() -> None:
    assert [precision_on(wanted, MACHINE) for wanted in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="no other system lists here what its processor can do")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are the names of instructions of x86-64")
def test_auto_is_bf16_on_a_processor_with_instructions_for_it() -> None:
    words = Path("/proc/cpuinfo").read_text().split()
    assert precision_on("auto", MACHINE) == ("bf16" if {"avx512_bf16", "amx_bf16"} & set(words) else "fp32")


def attention_inputs(positions: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(positions)
    shape = 1, 2, positions, 8
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_() for _ in range(3)]


def attended(precision: str, inputs: list[torch.Tensor], **named: Any) -> torch.Tensor:
    with autocast(precision, MACHINE):
        return torch.nn.functional.scaled_dot_product_attention(*inputs, **named)


def test_short_attention_in_bf16_is_computed_in_float32_where_it_learns() -> None:
    inputs = attention_inputs(16)
    whole = torch.nn.functional.scaled_dot_product_attention(*(one.float() for one in inputs))
    found = attended("bf16", inputs)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, whole.bfloat16())
    expected = torch.autograd.grad(whole.sum(), inputs)
    assert all(map(torch.equal, torch.autograd.grad(found.float().sum(), inputs), expected))
    by_name = dict(zip(("query", "key", "value"), inputs, strict=True))
    assert torch.equal(attended("bf16", [], **by_name), found)


@pytest.mark.parametrize(("positions", "learns"), [(16, False), (320, True)])
def test_other_attention_is_computed_in_the_given_precision(positions: int, learns: bool) -> None:
    inputs = attention_inputs(positions)
    with torch.set_grad_enabled(learns):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = torch.nn.functional.scaled_dot_product_attention(*inputs)
        assert torch.equal(attended("bf16", inputs), expected)
        widened = torch.nn.functional.scaled_dot_product_attention(*(one.float() for one in inputs)).bfloat16()
    assert not torch.equal(expected, widened)
