"""A base on the meta device: every weight has its shape, and takes no memory. See `cost`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from dbcli.diffusion.adapters.attach import Trainable
from dbcli.diffusion.bases.assembly import Parts, empty_networks, kept_dtypes, match_all
from dbcli.diffusion.bases.base import Base, joined, parts_of, resolve_base
from dbcli.diffusion.bases.quantized import Packed
from dbcli.diffusion.bases.single_file import shipped_configs, shipped_tokenizer
from dbcli.diffusion.bases.stored_layers import keep_as_stored, round_to
from dbcli.diffusion.families.known import family_of_folder
from dbcli.errors import Unreachable

# Known bases whose configuration is one of our own.
SHIPPED = {"sd-v1-4": "sd-v1", "sd-v1-5": "sd-v1", "sdxl": "sdxl"}
# What the files of a variant are in.
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def load_meta_base(
    source: str, revision: str | None, *, prediction_type: str | None = None, vae: str | None = None
) -> Base:
    """A base on the meta device, its weights in the types that `load_base` keeps; `place` makes it able to run.

    For `prediction_type` and `vae` see `load_base`. Nothing is fetched: of a known base that is not here yet the
    shipped configuration is taken, if there is one. Raises Unreachable for any other that is not on this machine,
    BaseMissing and UnsafeFile as `load_base` does.
    """
    reference = resolve_base(source, revision, offline=True)
    try:
        parts = parts_of(reference, offline=True, prediction_type=prediction_type, vae=vae)
    except Unreachable:
        if not reference.is_known or reference.name not in SHIPPED:
            raise
        configs = shipped_configs(SHIPPED[reference.name])
        family, tokenizer = family_of_folder(configs["unet"]), partial(shipped_tokenizer, configs["pad_token"], 77)
        parts = Parts(family, configs, {}, [], dict.fromkeys(family.encoders, tokenizer), reference.source)
    networks = empty_networks(parts)
    plans = match_all(networks, parts) if parts.files else {}
    for name, network in networks.items():
        if name in plans:
            _keep(network, kept_dtypes(network, plans[name]))
        elif reference.variant in DTYPES:
            round_to(network, DTYPES[reference.variant])
        network.eval().requires_grad_(False)
    return joined(reference, parts, networks, "")


def _keep(network: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])
    keep_as_stored(network)


def place(base: Base, device: torch.device) -> None:
    """Puts a meta base on a device, inside `cost.fake_tensors`."""
    for network in base.networks.values():
        for module in network.modules():
            _place_own(module, device)


def placed(base: Base, trainable: Trainable) -> Trainable:
    """What of a base is trained, as it is after the base was placed."""
    parts = {name: name.partition(".") for name in trainable.tensors}
    tensors = {name: base.networks[part].get_parameter(inner) for name, (part, _, inner) in parts.items()}
    return replace(trainable, tensors=tensors)


def _place_own(module: nn.Module, device: torch.device) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        placed = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        setattr(module, name, nn.Parameter(placed, requires_grad=parameter.requires_grad))
    if isinstance(module, Packed) and module.offload:
        module.codes, module.scales = (torch.empty_like(part, device="cpu") for part in (module.codes, module.scales))
    for name, buffer in list(module.named_buffers(recurse=False)):
        persistent = name not in module._non_persistent_buffers_set
        placed = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
        module.register_buffer(name, placed, persistent=persistent)
