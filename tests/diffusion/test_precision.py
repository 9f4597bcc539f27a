"""Precisions: which one a device computes in, and attention on a CPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from dbcli.diffusion.precision import autocast, precision_on

MACHINE = torch.device("cpu")


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
