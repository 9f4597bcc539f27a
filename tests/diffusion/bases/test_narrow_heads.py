"""Narrow attention heads filled up: the same sums, forwards and backwards."""

from __future__ import annotations

import copy
from typing import Any

import torch

from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.bases.narrow_heads import NarrowHeads, widen_narrow_heads
from tests.diffusion.small_trainers import small_unet


def outcome(unet: Any) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    latents, conditioning = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 8, 32, generator=draw)
    predicted = unet(latents, torch.tensor([3, 700]), conditioning).sample
    predicted.square().mean().backward()
    return [predicted.detach(), *(parameter.grad for parameter in unet.parameters())]


def test_predictions_and_gradients_are_those_of_the_usual_attention() -> None:
    usual, widened = (copy.deepcopy(small_unet()).train() for _ in range(2))
    widen_narrow_heads(widened)
    # Heads of 32 / 4 values at the top; those in the middle have sixteen and stay as they are.
    kinds = [type(processor) is NarrowHeads for processor in widened.attn_processors.values()]
    assert any(kinds) and not all(kinds)
    for ours, theirs in zip(outcome(widened), outcome(usual), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_base_with_wide_heads_keeps_its_attention() -> None:
    processors = load_base("tiny").unet.attn_processors.values()  # type: ignore[union-attr,operator]
    assert processors and not any(type(processor) is NarrowHeads for processor in processors)
