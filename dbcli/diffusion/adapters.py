"""What of a base is trained: all of it (full) or low-rank additions to it (LoRA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

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


def _open(module: torch.nn.Module) -> None:
    """Every weight learns, in float32 whatever it was stored in."""
    for parameter in module.parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def make_full(unet: Any, text_encoder: Any, *, train_text: bool) -> Trainable:
    """Full fine-tuning: every weight of the UNet, and of the text encoder when asked for, learns in float32."""
    freeze(unet, text_encoder)
    _open(unet)
    tensors, modules = _named("unet", unet), [unet]
    if train_text:
        _open(text_encoder)
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
    from peft import LoraConfig, inject_adapter_in_model

    def config(names: Sequence[str], with_dora: bool) -> LoraConfig:
        return LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=list(names), lora_dropout=dropout, use_dora=with_dora, bias="none"
        )

    freeze(unet, text_encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config(targets, dora), unet, adapter_name=LORA_NAME)
        if train_text:
            # DoRA on a text encoder does not reload in diffusers, so it stays on the UNet.
            inject_adapter_in_model(config(text_targets, False), text_encoder, adapter_name=LORA_NAME)
    tensors, modules = _named("unet", unet), [unet]
    if train_text:
        tensors |= _named("text_encoder", text_encoder)
        modules.append(text_encoder)
    for parameter in tensors.values():
        parameter.data = parameter.data.float()
    return Trainable("lora", tensors, modules, train_text)


def lora_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """PEFT's own state dict of the adapter inside a module ("….lora_A.weight")."""
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(module, adapter_name=LORA_NAME)
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def attach_lora(unet: Any, text_encoder: Any, lora: LoraWeights, *, name: str = LORA_NAME) -> None:
    """Adds a finished LoRA to a base for drawing; the networks stay frozen."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import set_peft_model_state_dict

    networks = {"unet": unet, "text_encoder": text_encoder}
    for part, peft_lora in lora_to_peft(lora, unet, text_encoder).items():
        network = networks[part]
        inject_adapter_in_model(LoraConfig(**peft_lora.config), network, adapter_name=name)
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
