"""What of a base is trained: all of it (full), low-rank additions to it (LoRA), or new word vectors alone (textual
inversion, Gal et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dbcli.diffusion.adapters.layer_names import expanded
from dbcli.diffusion.formats.lora import PARTS, LoraWeights, lora_to_peft
from dbcli.diffusion.word_vectors import WordVectors, add_words

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

LORA_NAME = "default"
# Before the names of the vectors that textual inversion learns.
VECTORS = "vectors."


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


@dataclass(frozen=True)
class LoraOptions:
    """New low-rank layers: W + (alpha / rank) B A on the layers that `targets` and `text_targets` name.

    The text encoder gets its own only if `train_text`. `dropout` is the share of a layer's inputs that a training step
    leaves out, `dora` adds lengths (Liu et al. 2024) in the UNet, and A begins at random values that follow `seed`.
    """

    rank: int
    alpha: float
    targets: Sequence[str]
    text_targets: Sequence[str]
    dropout: float = 0.0
    dora: bool = False
    train_text: bool = False
    seed: int = 0


def freeze(*modules: torch.nn.Module) -> None:
    """Takes modules out of training."""
    for module in modules:
        module.requires_grad_(False)
        module.eval()


def make_full(unet: Any, text_encoder: Any, *, train_text: bool, dtype: torch.dtype = torch.float32) -> Trainable:
    """Full fine-tuning: every weight of the UNet, and of the text encoder when asked for, learns, in `dtype`.

    bfloat16 takes half the memory and needs an optimiser that rounds stochastically: the steps of a usual rate are
    smaller than half of a weight's last bit, and would all be lost.
    """
    freeze(unet, text_encoder)
    return _trainable("full", unet, text_encoder if train_text else None, "", dtype)


def add_lora(unet: Any, text_encoder: Any, options: LoraOptions, start: LoraWeights | None = None) -> Trainable:
    """Low-rank adaptation by PEFT, B zero at the start (Hu et al. 2022, section 4.1).

    `start` is a finished LoRA to train further, each layer with its own rank and alpha; a network that is to learn and
    for which it has no layer gets new ones all the same, and its layers for a text encoder that is not to learn stay in
    force, frozen. The global random state is left as it was.
    """
    freeze(unet, text_encoder)
    if start is not None:
        attach_lora(unet, text_encoder, start, dropout=options.dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if start is None or not start.unet:
            _inject(unet, options.targets, options, dora=options.dora)
        if options.train_text and (start is None or not start.text_encoder):
            # DoRA on a text encoder does not reload in diffusers, so it stays on the UNet.
            _inject(text_encoder, options.text_targets, options, dora=False)
    return _trainable("lora", unet, text_encoder if options.train_text else None, "lora_", torch.float32)


def _inject(network: Any, targets: Sequence[str], options: LoraOptions, *, dora: bool) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # PEFT annotates int and takes any number
        target_modules=expanded(network, targets),
        lora_dropout=options.dropout,
        use_dora=dora,
    )
    inject_adapter_in_model(config, network, adapter_name=LORA_NAME)


def _trainable(method: str, unet: Any, text_encoder: Any | None, mark: str, dtype: torch.dtype) -> Trainable:
    """Opens the parameters whose names hold `mark`, in `dtype` whatever they were stored in."""
    tensors: dict[str, torch.nn.Parameter] = {}
    networks = {part: network for part, network in zip(PARTS, (unet, text_encoder), strict=True) if network is not None}
    for part, network in networks.items():
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(mark in name)
            if mark in name:
                parameter.data = parameter.data.to(dtype)
                tensors[f"{part}.{name}"] = parameter
    return Trainable(method, tensors, list(networks.values()), text_encoder is not None)


def attach_lora(unet: Any, text_encoder: Any, lora: LoraWeights, *, dropout: float = 0.0) -> None:
    """Adds a finished LoRA to a base; the networks stay frozen. `dropout` matters to further training only."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import set_peft_model_state_dict

    networks = {"unet": unet, "text_encoder": text_encoder}
    for part, (config, tensors) in lora_to_peft(lora, unet, text_encoder).items():
        network = networks[part]
        inject_adapter_in_model(LoraConfig(**config, lora_dropout=dropout), network, adapter_name=LORA_NAME)
        set_peft_model_state_dict(network, tensors, adapter_name=LORA_NAME)
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


def make_inversion(base: Base, words: Mapping[str, WordVectors]) -> Trainable:
    """Adds each subject's word to a base that is frozen otherwise; "vectors.<subject>" are what learns, in float32.

    The text encoder has to be run at every step, though none of its weights learns: its input changes.
    """
    freeze(base.unet, base.text_encoder)
    parameters = add_words(base, list(words.values()))
    tensors = {f"{VECTORS}{subject}": vectors for subject, vectors in zip(words, parameters, strict=True)}
    for vectors in parameters:
        vectors.requires_grad_(True)
    return Trainable("textual-inversion", tensors, [], trains_text=True)


def learnt_vectors(trainable: Trainable) -> dict[str, torch.Tensor]:
    """Subject -> its vectors as they are now, float32 `[n, D]` on the CPU."""
    return {name.removeprefix(VECTORS): vectors.detach().cpu() for name, vectors in trainable.tensors.items()}
