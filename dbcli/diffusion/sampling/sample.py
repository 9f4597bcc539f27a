"""From prompts to images: classifier-free guidance with any sampler, many images at a time."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.bases.pass_timestep import depends_on_timestep
from dbcli.diffusion.compile import compile_unet
from dbcli.diffusion.conditioning import embed_pairs
from dbcli.diffusion.devices import on_device
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.images import decode
from dbcli.diffusion.precision import AUTOCAST, autocast
from dbcli.diffusion.schedulers.samplers import NOISIEST
from dbcli.errors import ImageNotFinite, Interrupted

# How far guidance is rescaled where the base has zero terminal SNR (Lin et al. 2024, section 3.4): without it images
# are overexposed, as nothing bounds what is predicted from pure noise.
GUIDANCE_RESCALE = 0.7
# The keys and values of cross-attention: a prompt's are the same at every sampling step.
FROM_PROMPT = ("attn2.to_k", "attn2.to_v")


@dataclass(frozen=True)
class SampleRequest:
    """One image to generate."""

    prompt: str
    seed: int
    negative: str = ""


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample: sampler name, steps, guidance scale w in e_0 + w (e_c - e_0), DDIM's eta, size in px.

    `precision` (fp32, bf16, fp16) is the UNet's alone: latents, text and decoding stay in the model's own precision.
    `compiled` has the UNet compiled before the first step; `timesteps` is that of `make_sampler`.
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
    timesteps: str = NOISIEST


@torch.no_grad()
def sample_images(
    base: Base,
    requests: Sequence[SampleRequest],
    settings: SamplingSettings,
    *,
    on_denoise: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    wanted: Collection[int] | None = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields (index into requests, image `[3, H, W]` in about [-1, 1], on the CPU), batch by batch.

    `wanted` leaves out the batches that hold none of these indices. The others are sampled whole: the last bits of an
    image depend on the size of its batch, and so one generated later equals one generated at once.

    on_denoise(n) reports that n images moved on by one of `settings.steps`. Raises Interrupted between two steps when
    should_stop says so. An image depends on its own request alone, not on its neighbours in the batch. One that is not
    finite is sampled once more in fp32, alone, and `on_note` gets a sentence about it; if it is not finite then either,
    ImageNotFinite is raised.
    """
    prompts, negatives = [one.prompt for one in requests], [one.negative for one in requests]
    device = base.unet.device
    if settings.compiled:
        compile_unet(base.unet)
    with on_device(device, *base.encoders.values()):
        positive, negative = embed_pairs(base, prompts, negatives, clip_skip=settings.clip_skip)
    for start in range(0, len(requests), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        seeds = [one.seed for one in requests[rows]]
        if wanted is not None and not any(index in wanted for index in range(start, start + len(seeds))):
            continue
        # A compiled UNet cannot look up what another step has computed, and a T-LoRA's keys are those of one timestep.
        changes = settings.compiled or depends_on_timestep(base.unet)
        with nullcontext() if changes else cached_cross_attention(base.unet):
            latents = _denoise(base, positive.rows(rows), negative.rows(rows), seeds, settings, on_denoise, should_stop)
        # One image at a time: decoding holds the largest tensors of all.
        with on_device(device, base.vae):
            for row, latent in enumerate(latents):
                with _decoding(base, device):
                    image = decode(base.vae, latent[None])[0].float().cpu()
                if not torch.isfinite(image).all():
                    image = _once_more(base, requests[start + row], settings, should_stop, on_note)
                yield start + row, image


def _decoding(base: Base, device: torch.device) -> AbstractContextManager[object]:
    """Where the caller computes in half precision, which this family's autoencoder overflows in, it does not."""
    return torch.autocast(device.type, enabled=False) if base.family.vae_in_fp32 else nullcontext()


def _once_more(
    base: Base,
    request: SampleRequest,
    settings: SamplingSettings,
    should_stop: Callable[[], bool],
    on_note: Callable[[str], None],
) -> torch.Tensor:
    """An image `[3, H, W]` sampled again in fp32. Raises ImageNotFinite where it was fp32 already, or is no better."""
    device = base.unet.device
    reduced = next((name for name, dtype in AUTOCAST.items() if _autocasts_to(device, dtype)), settings.precision)
    if reduced in AUTOCAST:
        with torch.autocast(device.type, enabled=False):
            with on_device(device, *base.encoders.values()):
                texts = embed_pairs(base, [request.prompt], [request.negative], clip_skip=settings.clip_skip)
            whole = replace(settings, precision="fp32")
            latents = _denoise(base, *texts, [request.seed], whole, None, should_stop)
            image: torch.Tensor = decode(base.vae, latents)[0].float().cpu()
        if torch.isfinite(image).all():
            on_note(f"In {reduced} the image of seed {request.seed} is not finite; it was generated once more in fp32.")
            return image
    raise ImageNotFinite(
        f"The image of seed {request.seed} is not finite (NaN or infinity) in fp32: {_cause(base)}.",
        hint='dreambooth generate --run base "a photo" shows whether the base or the run is at fault',
    )


def _autocasts_to(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the caller computes in this type around everything that is done here."""
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == dtype


def _cause(base: Base) -> str:
    """Why images are not finite, as far as the weights show it, as the end of a sentence."""
    for part, network in base.networks.items():
        for name, parameter in network.named_parameters():
            count = 0 if parameter.is_meta else int((~torch.isfinite(parameter)).sum())
            if count:
                return f"{part}.{name} contains {count} infinite or NaN weight{'' if count == 1 else 's'}"
    return "every weight is finite, but the result is not"


def _denoise(
    base: Base,
    positive: Conditioning,
    negative: Conditioning,
    seeds: Sequence[int],
    settings: SamplingSettings,
    on_denoise: Callable[[int], None] | None,
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """Latents `[B, C, h, w]` of one batch; guidance is Ho and Salimans 2022, equation 6, in one forward pass."""
    device, dtype = base.unet.device, base.unet.dtype
    process = base.process
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    how = settings.sampler, settings.steps, settings.timesteps
    sampler = process.sampler(*how, device=device, generators=generators, eta=settings.eta)
    shape = (base.latent_channels, settings.height // base.vae_factor, settings.width // base.vae_factor)
    latents: torch.Tensor = torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])
    latents = sampler.begin(latents.to(device))
    guided = settings.guidance != 1.0
    conditioning = (Conditioning.cat([negative, positive]) if guided else positive).to(device, dtype)
    # Heun calls the UNet twice per step, PNDM once more in all: reported are the steps that were asked for.
    calls, reported = len(sampler.levels), 0
    for call, level in enumerate(sampler.levels, 1):
        if should_stop():
            raise Interrupted("Stopped while generating.")
        scaled = sampler.shown(latents, level).to(dtype)
        rows = torch.cat([scaled, scaled]) if guided else scaled
        with autocast(settings.precision, latents.device):
            output = base.denoiser(rows, level, conditioning).float()
        if guided:
            plain, conditioned = output.chunk(2)
            output = plain + settings.guidance * (conditioned - plain)
            if process.rescales_guidance:
                output = rescaled_guidance(output, conditioned)
        latents = sampler.after(output, level, latents)
        done = call * settings.steps // calls
        if on_denoise is not None and done > reported:
            on_denoise(len(seeds) * (done - reported))
        reported = done
    return latents


@contextmanager
def cached_cross_attention(unet: Any) -> Iterator[None]:
    """Inside it keys and values are computed again only for another conditioning tensor; not one bit changes.

    For sampling with fixed weights: they must not change inside.
    """
    changed = [module for name, module in unet.named_modules() if name.endswith(FROM_PROMPT)]
    own = [module.__dict__.get("forward") for module in changed]
    for module in changed:
        module.forward = _remembering(module.forward)
    try:
        yield
    finally:
        for module, before in zip(changed, own, strict=True):
            del module.forward
            if before is not None:
                module.forward = before


def _remembering(project: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    kept: list[torch.Tensor] = []

    def forward(conditioning: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        # By identity: the UNet hands the very tensor through that it was given.
        if not kept or kept[0] is not conditioning:
            kept[:] = [conditioning, project(conditioning, *rest, **named)]
        return kept[1]

    return forward


def rescaled_guidance(guided: torch.Tensor, conditioned: torch.Tensor) -> torch.Tensor:
    """The guided prediction `[B, C, H, W]` with its deviation brought back towards that of the conditioned one.

    Equations 15 and 16 of Lin et al. 2024, with phi = GUIDANCE_RESCALE.
    """
    over = tuple(range(1, guided.ndim))
    scale = conditioned.std(dim=over, keepdim=True) / guided.std(dim=over, keepdim=True)
    return GUIDANCE_RESCALE * guided * scale + (1 - GUIDANCE_RESCALE) * guided
