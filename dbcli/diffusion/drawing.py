"""From prompts to pictures: classifier-free guidance with any sampler, many pictures at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from dbcli.diffusion.arithmetic import computing_in
from dbcli.diffusion.bases import Base
from dbcli.diffusion.compiling import compile_unet
from dbcli.diffusion.conditioning import embed_prompts
from dbcli.diffusion.images import decode
from dbcli.diffusion.resting import at_work
from dbcli.diffusion.samplers import make_sampler
from dbcli.diffusion.steady_prompts import steady_prompts
from dbcli.errors import Interrupted


@dataclass(frozen=True)
class Order:
    """One picture to draw."""

    prompt: str
    seed: int
    negative: str = ""


@dataclass(frozen=True)
class DrawSettings:
    """How to draw: sampler name, steps, guidance scale w in e_0 + w (e_c - e_0), DDIM's eta, size in px.

    `precision` (fp32, bf16, fp16) is the UNet's alone: latents, text and decoding stay in the model's own numbers.
    `compiled` has the UNet compiled before the first step.
    """

    sampler: str = "ddim"
    steps: int = 100
    guidance: float = 10.0
    eta: float = 0.0
    width: int = 512
    height: int = 512
    batch_size: int = 4
    clip_skip: int = 0
    precision: str = "fp32"
    compiled: bool = False


@torch.no_grad()
def draw(
    base: Base,
    orders: Sequence[Order],
    settings: DrawSettings,
    *,
    on_denoise: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields (index into orders, picture `[3, H, W]` in about [-1, 1], on the CPU), batch by batch.

    `wanted` leaves out the batches that hold none of these indices. The others are drawn whole: the last bits of a
    picture depend on the size of its batch, and so one drawn later equals one drawn at once.

    on_denoise(n) reports n pictures having moved on by one step. Raises Interrupted between two steps when
    should_stop says so. A picture depends on its own order alone, not on its neighbours in the batch.
    """
    prompts = [order.prompt for order in orders] + [order.negative for order in orders]
    device: Any = base.unet.device
    if settings.compiled:
        compile_unet(base.unet)
    with at_work(device, base.text_encoder):
        embedded = embed_prompts(base.tokenizer, base.text_encoder, prompts, clip_skip=settings.clip_skip)
    asked, unasked = embedded[: len(orders)], embedded[len(orders) :]
    for start in range(0, len(orders), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        seeds = [order.seed for order in orders[rows]]
        if wanted is not None and not any(index in wanted for index in range(start, start + len(seeds))):
            continue
        # What is compiled cannot look up what another step has computed.
        with nullcontext() if settings.compiled else steady_prompts(base.unet):
            latents = _denoise(base, asked[rows], unasked[rows], seeds, settings, on_denoise, should_stop)
        # One picture at a time: decoding holds the largest tensors of all.
        with at_work(device, base.vae):
            for row, latent in enumerate(latents):
                yield start + row, decode(base.vae, latent[None])[0].float().cpu()


def _denoise(
    base: Base,
    wanted: torch.Tensor,
    unwanted: torch.Tensor,
    seeds: Sequence[int],
    settings: DrawSettings,
    on_denoise: Callable[[int], None] | None,
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """Latents `[B, C, h, w]` of one batch; guidance is Ho and Salimans 2022, equation 6, in one forward pass."""
    device, dtype = base.unet.device, base.unet.dtype
    sampler = make_sampler(settings.sampler, base.scheduler_config)
    sampler.set_timesteps(settings.steps, device=device)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    shape = (base.latent_channels, settings.height // base.vae_factor, settings.width // base.vae_factor)
    latents = torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])
    latents = latents.to(device) * sampler.init_noise_sigma
    guided = settings.guidance != 1.0
    conditioning = (torch.cat([unwanted, wanted]) if guided else wanted).to(device, dtype)
    extra = _step_arguments(sampler, generators, settings.eta)
    for timestep in sampler.timesteps:
        if should_stop():
            raise Interrupted("Stopped while drawing.")
        scaled = sampler.scale_model_input(latents, timestep).to(dtype)
        rows = torch.cat([scaled, scaled]) if guided else scaled
        with computing_in(settings.precision, latents.device):
            output = base.unet(rows, timestep, conditioning).sample.float()
        if guided:
            plain, conditioned = output.chunk(2)
            output = plain + settings.guidance * (conditioned - plain)
        latents = sampler.step(output, timestep, latents, **extra).prev_sample
        if on_denoise is not None:
            on_denoise(len(seeds))
    return latents


def _step_arguments(sampler: Any, generators: list[torch.Generator], eta: float) -> dict[str, Any]:
    """What this sampler's step takes beside the prediction: eta for DDIM, generators for those that add noise."""
    accepted = inspect.signature(sampler.step).parameters
    extra: dict[str, Any] = {}
    if "eta" in accepted:
        extra["eta"] = eta
    if "generator" in accepted:
        extra["generator"] = generators
    return extra
