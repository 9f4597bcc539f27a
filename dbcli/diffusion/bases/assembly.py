"""From configurations and named tensors to the networks of a base, nothing allocated before all of it fits."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dbcli.diffusion.bases.stored_layers import is_kept, keep_as_stored, kept_dtype
from dbcli.diffusion.families.family import Family, Part
from dbcli.diffusion.files.weight_file import WeightFile
from dbcli.diffusion.files.weights_hash import WeightsDigest
from dbcli.diffusion.unloading import can_be_read_again, remember_files, unload
from dbcli.errors import BaseMissing, UnsafeFile

# Upper bounds of what a configuration may ask for; Stable Diffusion 1, 2 and XL stay below each.
CONFIG_LIMITS = {
    **dict.fromkeys(("layers_per_block", "transformer_layers_per_block"), 16),
    **dict.fromkeys(("num_hidden_layers", "in_channels", "out_channels", "latent_channels"), 64),
    "norm_num_groups": 512,
    "max_position_embeddings": 262_144,
    "axes_lens": 65_536,
    "head_dim": 4096,
    "n_layers": 128,
    "n_refiner_layers": 16,
    **dict.fromkeys(("n_heads", "num_key_value_heads"), 1024),
    **dict.fromkeys(("dim", "cap_feat_dim"), 16_384),
    **dict.fromkeys(("hidden_size", "cross_attention_dim", "block_out_channels"), 8192),
    **dict.fromkeys(("attention_head_dim", "num_attention_heads"), 8192),
    "intermediate_size": 32768,
    "num_train_timesteps": 100_000,
    "vocab_size": 1_000_000,
}
MAX_BLOCKS = 8
RANDOM_FILLS = ("normal_", "uniform_")

# Names that some writers store beside the weights and no network has as a parameter.
IGNORED_NAME = re.compile(r"(^|\.)(position_ids|logit_scale)$|^(text_projection|lm_head)(\.weight)?$")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its shape and type from the header, and how to read it (as stored, own memory)."""

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]
    dtype: torch.dtype

    @classmethod
    def of(cls, weights: WeightFile, name: str) -> Entry:
        return cls(weights.shape(name), partial(weights.read, name), weights.dtype(name))


@dataclass
class Parts:
    """A base before it takes memory: configurations, and for each network its tensors by diffusers name.

    The names of a text encoder's tensors lack the prefix `text_model.`; `tokenizers` are by the encoder that each is
    for. `files` are what the weights come from, `small_files` the configurations and the tokenizers where they lie
    beside them.
    """

    family: Family
    configs: dict[str, dict[str, Any]]
    entries: dict[str, dict[str, Entry]]
    files: list[Path]
    tokenizers: dict[str, Callable[[], Any]]
    source: str
    notes: list[str] = field(default_factory=list)
    small_files: list[Path] = field(default_factory=list)


def build_networks(
    parts: Parts, *, dtype: torch.dtype | None, device: str | torch.device, digest: WeightsDigest | None
) -> dict[str, nn.Module]:
    """Builds the networks of a base and fills them, in evaluation mode and without gradients.

    Without a `dtype` the weights of large networks are kept as they are stored, all others in float32. Shapes of all
    are compared with the networks' before the first tensor is read. `digest`, if given, is fed every tensor. Parts that
    rest are left without their weights. Raises UnsafeFile (a configuration out of bounds, a shape that does not fit) or
    BaseMissing (a tensor that is not there).
    """
    networks = empty_networks(parts)
    plans = match_all(networks, parts)
    for component, network in networks.items():
        plan = plans[component]
        kept = dict.fromkeys(plan, dtype) if dtype is not None else kept_dtypes(network, plan)
        is_unloaded = parts.family.parts[component].is_unloaded
        if not is_unloaded or digest is not None:
            _fill(network, plan, component, dtypes=kept, device=device, digest=digest)
        network.eval().requires_grad_(False)
        if dtype is None:
            keep_as_stored(network, kept)
        if is_unloaded or can_be_read_again(parts.files):
            remember_files(network, partial(_reload, network, plan, component, kept, device))
        if is_unloaded:
            unload(network)
    return networks


def _reload(
    network: nn.Module,
    plan: Mapping[str, Entry],
    component: str,
    dtypes: Mapping[str, torch.dtype],
    usual: str | torch.device,
    device: torch.device | None,
) -> None:
    _fill(network, plan, component, dtypes=dtypes, device=usual if device is None else device, digest=None)


def kept_dtypes(network: nn.Module, plan: Mapping[str, Entry]) -> dict[str, torch.dtype]:
    """For each parameter of a network the type in which it is kept in memory."""
    if not is_kept(network):
        return dict.fromkeys(plan, torch.float32)
    return {name: kept_dtype(network, name, entry.dtype) for name, entry in plan.items()}


def empty_networks(parts: Parts) -> dict[str, nn.Module]:
    """The networks, with shapes but no memory. Raises UnsafeFile for a configuration out of bounds."""
    for component in parts.family.parts:
        check_config(parts.configs[component], f"{parts.source} ({component})")
    return {name: empty_network(name, part, parts.configs[name]) for name, part in parts.family.parts.items()}


def match_all(networks: Mapping[str, nn.Module], parts: Parts) -> dict[str, dict[str, Entry]]:
    """For each network the entries of its parameters; see `match_names`."""
    return {
        component: match_names(network, parts.entries[component], f"{parts.source} ({component})")
        for component, network in networks.items()
    }


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuses a configuration that would take absurd time or memory to build. Raises UnsafeFile."""
    for key, limit in CONFIG_LIMITS.items():
        value = config.get(key)
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) > MAX_BLOCKS:
            raise UnsafeFile(f"{where}: {key} has {len(values)} entries.")
        for number in values:
            if isinstance(number, int | float) and not 0 <= number <= limit:
                raise UnsafeFile(f"{where}: {key} is {number}, outside 0 to {limit}.")


def empty_network(component: str, part: Part, config: Mapping[str, Any]) -> nn.Module:
    """A network whose parameters have shapes but no memory. Raises UnsafeFile where the configuration is nonsense."""
    try:
        with quiet_libraries(), torch.device("meta"), _Unfilled():
            network = part.build(config)
    except Exception as error:  # a configuration from a stranger can fail anywhere inside the constructors
        raise UnsafeFile(f"The configuration of the {component} does not describe a network ({error}).") from error
    _give_buffers(network)
    return network


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills a tensor with random numbers, for which torch's compiler is imported on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in RANDOM_FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _give_buffers(network: nn.Module) -> None:
    """Buffers that no file stores: CLIP's position numbers, and the frequencies of rotary embeddings."""
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, _computed(module, name, buffer), persistent=False)


def _computed(module: Any, name: str, buffer: torch.Tensor) -> torch.Tensor:
    with torch.device("cpu"):
        if name == "position_ids":
            return torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()
        if name in ("inv_freq", "original_inv_freq") and getattr(module, "rope_type", None) == "default":
            frequencies: torch.Tensor = module.compute_default_rope_parameters(module.config)[0]
            return frequencies
    raise UnsafeFile(f"The network keeps a buffer {name!r} that no model file has.")


def match_names(network: nn.Module, entries: Mapping[str, Entry], where: str) -> dict[str, Entry]:
    """For each parameter of the network its entry; names and shapes must agree in full.

    A 1 × 1 convolution and a linear layer are the same numbers: shapes may differ in trailing ones.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    plan = {name: entries[bare] for name in expected if (bare := name.removeprefix("text_model.")) in entries}
    missing = [name for name in expected if name not in plan]
    if missing:
        raise BaseMissing(
            f"{where} lacks {len(missing)} of {len(expected)} tensors, starting with {missing[0]}.",
            hint="Only complete models of Stable Diffusion 1.x, 2.x and XL, and of Z-Image, can be a base.",
        )
    known = {name.removeprefix("text_model.") for name in expected}
    strange = [name for name in entries if name not in known and not IGNORED_NAME.search(name)]
    if strange:
        raise UnsafeFile(f"{where} has {len(strange)} unexpected tensors, starting with {strange[0]}.")
    for name, shape in expected.items():
        if _squeezed(plan[name].shape) != _squeezed(shape):
            raise UnsafeFile(f"{where}: {name} has the shape {list(plan[name].shape)}, not {list(shape)}.")
    return plan


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _fill(
    network: nn.Module,
    plan: Mapping[str, Entry],
    component: str,
    *,
    dtypes: Mapping[str, torch.dtype],
    device: str | torch.device,
    digest: WeightsDigest | None,
) -> None:
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    state = {}
    for name in sorted(plan, key=lambda name: name.removeprefix("text_model.")):
        tensor = plan[name].read().reshape(shapes[name])
        if digest is not None:
            digest.add(f"{component}.{name.removeprefix('text_model.')}", tensor)
        state[name] = tensor.to(device=device, dtype=dtypes[name])
    network.load_state_dict(state, strict=True, assign=True)
    network.to(device)  # the buffers
    network.eval()
    network.requires_grad_(False)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps diffusers and transformers from printing warnings of their own while a model is built."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
