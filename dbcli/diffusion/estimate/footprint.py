"""What a recipe takes of a device, phase by phase: fake runs on a meta base, not guesses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from dbcli.diffusion.adapters.attach import Trainable
from dbcli.diffusion.adapters.product_layers import ZERO_FACTORS
from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.buckets import Size
from dbcli.diffusion.conditioning import encode_ids
from dbcli.diffusion.estimate.cost import PassCost, fake_run
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.images import decode
from dbcli.diffusion.precision import autocast, computes_in_bf16
from dbcli.diffusion.training.optimisers import MUON, takes_muon


@dataclass(frozen=True)
class Batch:
    """What one forward pass holds: rows, their width and height in px, and its precision."""

    rows: int
    size: Size
    precision: str = "fp32"


def held_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of tensors that stay, each storage once."""
    storages = {id(storage): storage.nbytes() for tensor in tensors if (storage := tensor.untyped_storage())}
    return sum(storages.values())


def weights_bytes(base: Base) -> int:
    """Bytes of the networks as they are now, but for those that rest."""
    return network_bytes(network for name, network in base.networks.items() if not base.family.parts[name].is_unloaded)


def unloaded_bytes(base: Base) -> int:
    """Bytes of the networks that are in memory for moments only."""
    return network_bytes(network for name, network in base.networks.items() if base.family.parts[name].is_unloaded)


def network_bytes(networks: Iterable[Any]) -> int:
    """Bytes of networks' parameters and buffers."""
    return held_bytes(tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))


def training_pass(base: Base, trainable: Trainable, batch: Batch, *, fused: bool = False) -> PassCost:
    """One forward and backward pass, whose gradients are dropped again.

    fused: each gradient is freed the moment it is whole, as an optimiser in the backward pass does.
    """
    for module in trainable.modules:
        module.train()
    denoiser, latents = base.denoiser, _latents(base, batch)
    levels = _level(base, latents.device).expand(batch.rows)
    frozen = _conditioning(base, batch.rows)

    def work() -> None:
        with autocast(batch.precision, latents.device):
            conditioning = frozen
            if trainable.trains_text:
                rows = [row // -(-batch.rows // 2) for row in range(batch.rows)]
                conditioning = encode_ids(base, _ids(base, 2)).rows(rows)
            prediction = denoiser(latents, levels, conditioning)
        torch.autograd.backward((prediction.float() - latents).square().flatten(1).mean(1).mean())

    parameters = list(trainable.tensors.values())
    hooks = [one.register_post_accumulate_grad_hook(_drop_gradient) for one in parameters if fused]
    cost = fake_run(work)
    for parameter in parameters:
        _drop_gradient(parameter)
    for hook in hooks:
        hook.remove()
    return cost


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _ids(base: Base, prompts: int) -> dict[str, torch.Tensor]:
    shape = prompts, base.max_tokens
    return {name: torch.zeros(shape, dtype=torch.int64, device=base.unet.device) for name in base.encoders}


@torch.no_grad()
def _conditioning(base: Base, rows: int) -> Conditioning:
    """Of as many prompts, each with its own memory and as long as any can be."""
    # No mask: how much of a prompt counts is no shape, and fake tensors have nothing else.
    found = replace(encode_ids(base, _ids(base, 1)), mask=None)
    return found.expand(rows).each(torch.clone)


def prompt_bytes(base: Base) -> int:
    """Bytes of one encoded prompt, which text encoders that do not learn are asked for once."""
    one = _conditioning(base, 1)
    return held_bytes(tensor for tensor in (one.states, one.pooled) if tensor is not None)


def _level(base: Base, device: torch.device) -> torch.Tensor:
    """Any level of the base's process, a scalar."""
    return torch.zeros((), dtype=base.process.level_at(0).dtype, device=device)


def _adamw_8bit_bytes(name: str, parameter: torch.Tensor) -> int:
    # Two moments of a byte with a float32 scale a block of 256; tensors under 4096 values stay whole.
    values = parameter.numel()
    return 8 * values if values < 4096 else 2 * values + 8 * -(-values // 256)


def _adafactor_bytes(name: str, parameter: torch.Tensor) -> int:
    # Means over rows and over columns instead of a second moment (Shazeer and Stern 2018, section 3).
    values = parameter.numel()
    if parameter.ndim < 2:
        return 4 * values
    return 4 * (values // parameter.shape[-1] + values // parameter.shape[-2])


def _prodigy_bytes(name: str, parameter: torch.Tensor) -> int:
    # Two moments, a sum of gradients, and where the weight began, unless that is 0.
    return (12 if begins_at_zero(name) else 16) * parameter.numel()


def begins_at_zero(name: str) -> bool:
    """Whether a weight of this name is 0 before the first step: the last matrix of a new adapter."""
    return ".lora_B." in name or name.rpartition(".")[2] in ZERO_FACTORS


def _muon_bytes(name: str, parameter: torch.Tensor) -> int:
    return (4 if takes_muon(name, parameter) else 8) * parameter.numel()


# Of a weight's name and shape.
OPTIMISER_BYTES: dict[str, Callable[[str, torch.Tensor], int]] = {
    "adamw": lambda name, parameter: 8 * parameter.numel(),
    "adamw16bit": lambda name, parameter: 4 * parameter.numel(),
    "adamw8bit": _adamw_8bit_bytes,
    "adafactor": _adafactor_bytes,
    "prodigy": _prodigy_bytes,
    # A second moment and the iterate; the average follows from that and the weight.
    "schedulefree": lambda name, parameter: 8 * parameter.numel(),
    "muon": _muon_bytes,
}
# Beside its gradient, for the one weight that is updated: a quotient's divisor, or a momentum and what makes it
# orthogonal in bfloat16, of which there are three at once; four in float32 with two of the Gram matrix's size.
UPDATE_BYTES = {"prodigy": 4, "muon": 10}
MUON_BYTES_IN_FLOAT32 = 18


def optimiser_bytes(optimizer: str, trainable: Trainable) -> int:
    """Bytes of an optimiser's state for what learns, from its first step on."""
    return sum(OPTIMISER_BYTES[optimizer](name, parameter) for name, parameter in trainable.tensors.items())


def update_bytes(optimizer: str, largest: int, *, rounds: bool, device: torch.device) -> int:
    """Bytes that the update of a weight of `largest` values takes for the moment, where it is made in float32.

    Those are weight and gradient where the weights are rounded, both moments where these are kept in bfloat16, and what
    some optimisers compute from them.
    """
    computed = UPDATE_BYTES.get(optimizer, 0)
    if optimizer == MUON and not computes_in_bf16(device):
        computed = MUON_BYTES_IN_FLOAT32
    return largest * (8 * rounds + 8 * (optimizer == "adamw16bit") + computed)


@torch.no_grad()
def denoising_pass(base: Base, batch: Batch) -> PassCost:
    """One sampling step: the UNet on conditional and unconditional rows together."""
    latents = _latents(base, Batch(2 * batch.rows, batch.size))
    conditioning = _conditioning(base, len(latents))
    level = _level(base, latents.device)

    def work() -> torch.Tensor:
        with autocast(batch.precision, latents.device):
            return base.denoiser(latents, level, conditioning)

    return fake_run(work)


@torch.no_grad()
def decoding_pass(base: Base, batch: Batch) -> PassCost:
    """From latents to images."""
    latents = _latents(base, batch)
    return fake_run(lambda: decode(base.vae, latents))


@torch.no_grad()
def encoding_pass(base: Base, batch: Batch) -> PassCost:
    """From images to the autoencoder's posterior."""
    width, height = batch.size
    pixels = torch.empty(batch.rows, 3, height, width, device=base.unet.device)
    vae: Any = base.vae
    return fake_run(lambda: vae.encode(pixels).latent_dist.mean)


def _latents(base: Base, batch: Batch) -> torch.Tensor:
    width, height = (side // base.vae_factor for side in batch.size)
    return torch.empty(batch.rows, base.latent_channels, height, width, device=base.unet.device)
