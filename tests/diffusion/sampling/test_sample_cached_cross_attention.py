"""Keys and values of prompts computed once: no bit of a picture changes, and nothing is left behind."""

from __future__ import annotations

import copy

import torch

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora
from dbcli.diffusion.sampling.sample import cached_cross_attention
from tests.diffusion import tiny_models


@torch.no_grad()
def test_not_one_bit_changes_and_the_network_is_as_before() -> None:
    parts = {name: copy.deepcopy(tiny_models.networks()[name]) for name in ("unet", "text_encoder")}
    add_lora(parts, LoraOptions(rank=2, alpha=2, targets=["to_k", "to_v"], text_targets=[]))
    unet = parts["unet"].eval()
    latents = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(step)) for step in (1, 2)]
    prompts = [torch.randn(2, 77, 64, generator=torch.Generator().manual_seed(one)) for one in (3, 4)]
    calls = [(noisy, prompt) for prompt in prompts for noisy in latents]
    plain = [unet(noisy, 500, prompt).sample for noisy, prompt in calls]
    projections: list[int] = []
    key = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k
    handle = key.base_layer.register_forward_hook(lambda *_: projections.append(1))
    with cached_cross_attention(unet):
        steady = [unet(noisy, 500, prompt).sample for noisy, prompt in calls]
    handle.remove()
    assert all(torch.equal(one, other) for one, other in zip(plain, steady, strict=True))
    assert len(projections) == len(prompts)
    assert not [name for name, module in unet.named_modules() if "forward" in vars(module)]
