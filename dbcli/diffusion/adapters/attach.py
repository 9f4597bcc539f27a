"""What of a base is trained: all of it (full) or low-rank additions to it (LoRA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dbcli.diffusion.adapters.layer_targets import expanded
from dbcli.diffusion.formats.lora import LoraWeights, lora_to_peft

LORA_NAME = "default"


@dataclass(frozen=True)
class Trainable:
    """The parts of a model that learn.

    tensors maps stable names ("unet.…", "text_encoder.…") to parameters; modules are those whose training
    mode must be on; trains_text says whether prompts have to be encoded anew at every step.
    """

    method: str
    tensors: dict[str, torch.nn.Parameter]
    modules: list[torch.nn.Module]
    trains_text: bool

    @property
    def count(self) -> int:
        """Number of values that learn."""
        return sum(parameter.numel() for parameter in self.tensors.values())


def _named(prefix: str, module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def freeze(*modules: torch.nn.Module) -> None:
    """Takes modules out of training."""
    for module in modules:
        module.requires_grad_(False)
        module.eval()


def _open(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Every weight learns, in `dtype` whatever it was stored in."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(True)


def make_full(unet: Any, text_encoder: Any, *, train_text: bool, dtype: torch.dtype = torch.float32) -> Trainable:
    """Full fine-tuning: every weight of the UNet, and of the text encoder when asked for, learns.

    bfloat16 takes half the memory and needs an optimiser that rounds stochastically: the steps of a usual rate are
    smaller than half of a weight's last bit, and would all be lost.
    """
    freeze(unet, text_encoder)
    _open(unet, dtype)
    tensors, modules = _named("unet", unet), [unet]
    if train_text:
        _open(text_encoder, dtype)
        tensors |= _named("text_encoder", text_encoder)
        modules.append(text_encoder)
    return Trainable("full", tensors, modules, train_text)


def add_lora(
    unet: Any,
    text_encoder: Any,
    *,
    train_text: bool,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    text_targets: Sequence[str],
    dropout: float = 0.0,
    dora: bool = False,
    seed: int = 0,
) -> Trainable:
    """Low-rank adaptation by PEFT: W + (alpha / rank) B A, B zero at the start (Hu et al. 2022, section 4.1).

    The starting values of A follow `seed`; the global random state is left as it was.
    """
    freeze(unet, text_encoder)
    how = {"rank": rank, "alpha": alpha, "dropout": dropout}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(unet, targets, dora=dora, **how)
        if train_text:
            # DoRA on a text encoder does not reload in diffusers, so it stays on the UNet.
            _inject(text_encoder, text_targets, dora=False, **how)
    return _lora_trainable(unet, text_encoder, train_text=train_text)


def _inject(network: Any, targets: Sequence[str], *, rank: int, alpha: float, dropout: float, dora: bool) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    names = expanded(network, targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=dropout, use_dora=dora)
    inject_adapter_in_model(config, network, adapter_name=LORA_NAME)


def _lora_trainable(unet: Any, text_encoder: Any, *, train_text: bool) -> Trainable:
    tensors, modules = _named("unet", unet), [unet]
    if train_text:
        tensors |= _named("text_encoder", text_encoder)
        modules.append(text_encoder)
    for parameter in tensors.values():
        parameter.data = parameter.data.float()
    return Trainable("lora", tensors, modules, train_text)


def continue_lora(
    unet: Any,
    text_encoder: Any,
    lora: LoraWeights,
    *,
    train_text: bool,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    text_targets: Sequence[str],
    dropout: float = 0.0,
    dora: bool = False,
    seed: int = 0,
) -> Trainable:
    """A finished LoRA as the start of further training, each layer with its own rank and alpha.

    A network that is to learn and for which the LoRA has no layer gets a new adapter, as by `add_lora`. Layers for a
    text encoder that is not to learn stay in force, frozen.
    """
    freeze(unet, text_encoder)
    attach_lora(unet, text_encoder, lora, dropout=dropout)
    how = {"rank": rank, "alpha": alpha, "dropout": dropout}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not lora.unet:
            _inject(unet, targets, dora=dora, **how)
        if train_text and not lora.text_encoder:
            _inject(text_encoder, text_targets, dora=False, **how)
    for module in [unet, *([text_encoder] if train_text else [])]:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
    return _lora_trainable(unet, text_encoder, train_text=train_text)


def lora_alphas(module: torch.nn.Module) -> dict[str, float]:
    """The alpha of every layer of the adapter inside a module, by the path of the layer without `text_model.`."""
    return {
        name.removeprefix("text_model."): float(layer.lora_alpha[LORA_NAME])
        for name, layer in module.named_modules()
        if LORA_NAME in getattr(layer, "lora_alpha", {})
    }


def lora_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """PEFT's own state dict of the adapter inside a module ("….lora_A.weight")."""
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(module, adapter_name=LORA_NAME)
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def attach_lora(
    unet: Any, text_encoder: Any, lora: LoraWeights, *, name: str = LORA_NAME, dropout: float = 0.0
) -> None:
    """Adds a finished LoRA to a base; the networks stay frozen. `dropout` matters to further training only."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import set_peft_model_state_dict

    networks = {"unet": unet, "text_encoder": text_encoder}
    for part, peft_lora in lora_to_peft(lora, unet, text_encoder).items():
        network = networks[part]
        config = LoraConfig(**peft_lora.config, lora_dropout=dropout)
        inject_adapter_in_model(config, network, adapter_name=name)
        set_peft_model_state_dict(network, peft_lora.tensors, adapter_name=name)
        network.to(network.device)
        freeze(network)


def merge_lora(network: Any) -> None:
    """Adds every low-rank layer of a network to the weights beneath it, and takes the layers out again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: module for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, layer in layers.items():
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())
