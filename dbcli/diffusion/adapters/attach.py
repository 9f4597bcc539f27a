"""What of a base is trained: all of it (full), low-rank additions to it (LoRA), or new word vectors alone (textual
inversion, Gal et al. 2023).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from dbcli.diffusion.adapters.initial_values import Initialisation
from dbcli.diffusion.adapters.layer_names import expanded, is_target, layers_of
from dbcli.diffusion.bases.stored_layers import shown_as_float32
from dbcli.diffusion.families.family import Networks
from dbcli.diffusion.formats.lora import Layer, LoraLayer, LoraWeights, PeftLora, lora_to_peft
from dbcli.diffusion.formats.lycoris import ProductLayer
from dbcli.diffusion.formats.text_names import path_in
from dbcli.diffusion.formats.timestep_ranks import TimestepRanks
from dbcli.diffusion.word_vectors import WordVectors, add_words
from dbcli.errors import UnsupportedFile

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer as PeftLayer

    from dbcli.diffusion.bases.base import Base

LORA_NAME = "default"
# What is in the names of an adapter's parameters: PEFT's LoRA, LoKr and LoHa.
ADAPTER_MARKS = ("lora_", "lokr_", "hada_")
# And in those of what a LoRA began with.
START_NAMES = ("start_down", "start_up")
AdapterKind = Literal["lora", "lokr", "loha"]
# Before the names of the vectors that textual inversion learns.
VECTORS = "vectors."


@dataclass(frozen=True)
class Trainable:
    """The parts of a model that learn.

    tensors maps stable names ("unet.…", "text_encoder.…") to parameters; modules are those whose training
    mode must be on; trains_text says whether prompts have to be encoded anew at every step. constants are tensors, by
    such names, that do not learn but that no other machine would come to by the last bit.
    """

    method: str
    tensors: dict[str, torch.nn.Parameter]
    modules: list[torch.nn.Module]
    trains_text: bool
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of values that learn."""
        return sum(parameter.numel() for parameter in self.tensors.values())


@dataclass(frozen=True)
class LoraOptions:
    """New low-rank layers: W + (alpha / rank) B A on the layers that `targets` and `text_targets` name.

    `rank_stabilised` divides alpha by the root of the rank instead (Kalajdzievski 2023, rsLoRA). `kind` lokr and loha
    add products of factors in their place, divided by `factor`, with `decompose_both` and `tucker` as
    `product_layers.new_layer` has them. `initialisation` is what the matrices begin with (`initial_values`), and
    `schedule` by which timesteps the denoiser's ranks are in force. The text encoders get their own only if
    `train_text`. `dropout` is the share of a layer's inputs that a training step leaves out, `dora` adds lengths (Liu
    et al. 2024) in the denoiser, and what does not begin at zero begins at random values that follow `seed`.
    """

    rank: int
    alpha: float
    targets: Sequence[str]
    text_targets: Sequence[str]
    dropout: float = 0.0
    dora: bool = False
    train_text: bool = False
    seed: int = 0
    kind: AdapterKind = "lora"
    factor: int = -1
    decompose_both: bool = False
    tucker: bool = False
    rank_stabilised: bool = False
    initialisation: Initialisation = "zero"
    schedule: TimestepRanks | None = None

    @property
    def strength(self) -> float:
        """What the product of the matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def freeze(*modules: torch.nn.Module) -> None:
    """Takes modules out of training."""
    for module in modules:
        module.requires_grad_(False)
        module.eval()


def make_full(networks: Networks, *, train_text: bool, dtype: torch.dtype = torch.float32) -> Trainable:
    """Full fine-tuning: every weight of the denoiser, and of the text encoders when asked for, learns, in `dtype`.

    `networks` are those of `Base.tunable`, the denoiser first.

    bfloat16 takes half the memory and needs an optimiser that rounds stochastically: the steps of a usual rate are
    smaller than half of a weight's last bit, and would all be lost.
    """
    freeze(*networks.values())
    return _trainable("full", _learning(networks, train_text), ("",), dtype)


def _learning(networks: Networks, train_text: bool) -> Networks:
    """The denoiser, which comes first, and the text encoders if they learn."""
    return networks if train_text else dict(list(networks.items())[:1])


def add_lora(networks: Networks, options: LoraOptions, start: LoraWeights | None = None) -> Trainable:
    """Low-rank adaptation by PEFT, B zero at the start (Hu et al. 2022, section 4.1).

    `networks` are those of `Base.tunable`, the denoiser first. `start` is a finished LoRA to train further, each layer
    with its own rank and alpha; a network that is to learn and for which it has no layer gets new ones all the same,
    and its layers for a text encoder that is not to learn stay in force, frozen. What is random is drawn on the CPU,
    so that a seed means the same on every device; every device's global random state is left as it was.
    """
    freeze(*networks.values())
    if start is not None:
        attach_lora(networks, start, dropout=options.dropout)
    denoiser, learning = next(iter(networks)), _learning(networks, options.train_text)
    with torch.random.fork_rng(devices=[]):
        # The CPU's alone: torch.manual_seed would set those of GPUs, too.
        torch.default_generator.manual_seed(options.seed)
        for name, network in learning.items():
            if start is None or not start.part(name):
                is_text = name != denoiser
                targets = options.text_targets if is_text else options.targets
                # DoRA on a text encoder does not reload in diffusers, and a text encoder knows no timestep.
                own = replace(options, dora=False, schedule=None) if is_text else options
                _inject(network, targets, own)
    return _trainable("lora", learning, ADAPTER_MARKS, torch.float32)


def _inject(network: Any, targets: Sequence[str], options: LoraOptions) -> None:
    if options.kind != "lora":
        _inject_products(network, targets, options)
        return
    if options.initialisation != "zero" or options.schedule is not None:
        _inject_own(network, targets, options)
        return
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # PEFT annotates int and takes any number
        target_modules=expanded(network, targets),
        lora_dropout=options.dropout,
        use_dora=options.dora,
        use_rslora=options.rank_stabilised,
    )
    with shown_as_float32([network]):
        inject_adapter_in_model(config, network, adapter_name=LORA_NAME)
    if options.dora:
        _measure_lengths(network)


def _measure_lengths(network: Any) -> None:
    """Begins a DoRA's lengths as those of the weights, one after another: a whole network in float32 is large."""
    for module in network.modules():
        for name, lengths in (getattr(module, "lora_magnitude_vector", None) or {}).items():
            halves = {half: getattr(module, half)[name].weight for half in ("lora_A", "lora_B")}
            with shown_as_float32([module.base_layer], with_values=True):
                lengths.update_layer(base_layer=module.base_layer, scaling=module.scaling[name], **halves)


def _inject_products(network: Any, targets: Sequence[str], options: LoraOptions) -> None:
    from dbcli.diffusion.adapters.product_layers import new_layer, weight_shape, wrap

    assert options.kind != "lora"
    for path in _paths(network, targets):
        layer = new_layer(
            options.kind,
            weight_shape(network.get_submodule(path)),
            rank=options.rank,
            alpha=options.alpha,
            factor=options.factor,
            both=options.decompose_both,
            tucker=options.tucker,
        )
        wrap(network, path, layer, dropout=options.dropout)


def _inject_own(network: Any, targets: Sequence[str], options: LoraOptions) -> None:
    from dbcli.diffusion.adapters.lora_layers import wrap_new

    for path in _paths(network, targets):
        wrap_new(
            network,
            path,
            options.initialisation,
            rank=options.rank,
            strength=options.strength,
            dropout=options.dropout,
            schedule=options.schedule,
        )


def _paths(network: Any, targets: Sequence[str]) -> list[str]:
    """The layers of a network that `targets` name."""
    names = expanded(network, targets)
    return [path for path, fits in layers_of(network).items() if fits and is_target(path, names)]


def _trainable(method: str, networks: Networks, marks: Sequence[str], dtype: torch.dtype) -> Trainable:
    """Opens the parameters whose names hold one of `marks`, in `dtype` whatever they were stored in."""
    tensors: dict[str, torch.nn.Parameter] = {}
    for part, network in networks.items():
        for name, parameter in network.named_parameters():
            learns = any(mark in name for mark in marks)
            parameter.requires_grad_(learns)
            if learns:
                parameter.data = parameter.data.to(dtype)
                tensors[f"{part}.{name}"] = parameter
    constants = {
        f"{part}.{name}": buffer
        for part, network in networks.items()
        for name, buffer in network.named_buffers()
        if name.rpartition(".")[2] in START_NAMES and buffer.numel()
    }
    return Trainable(method, tensors, list(networks.values()), len(networks) > 1, constants)


def plain_loras(modules: Iterable[torch.nn.Module]) -> list[PeftLayer]:
    """The layers of networks to which PEFT adds a plain LoRA: none that measures lengths (DoRA)."""
    from peft.tuners.lora import LoraLayer as PeftLayer

    layers = [layer for network in modules for layer in network.modules() if isinstance(layer, PeftLayer)]
    return [layer for layer in layers if not layer.lora_variant]


@contextmanager
def inputs_left_to_autocast(layers: Sequence[PeftLayer]) -> Iterator[None]:
    """Has PEFT's LoRAs take their inputs as they come, for passes under autocast; without it types would not agree.

    By itself PEFT widens an input to the type of the matrices, and autocast narrows it again for the product: up to
    four copies of an activation a step, and the same bits.
    """
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.cast_input_dtype_enabled = True


def attach_lora(networks: Networks, lora: LoraWeights, *, dropout: float = 0.0) -> None:
    """Adds a finished LoRA, LoKr or LoHa to a base's networks, which stay frozen.

    `dropout` matters to further training only. Raises UnsupportedFile for one that can only be merged.
    """
    if lora.schedule is not None:
        _attach_scheduled(networks, lora, dropout)
        return
    # Of one configuration of PEFT's either all layers are DoRA, or none.
    for has_lengths in (True, False):
        alike = lora.changed(partial(_layers_alike, has_lengths))
        for part, peft_lora in lora_to_peft(alike, networks).items():
            _inject_finished(networks[part], peft_lora, dropout)
    for part, network in networks.items():
        products = {name: layer for name, layer in lora.part(part).items() if isinstance(layer, ProductLayer)}
        for name, layer in products.items():
            _wrap_finished(network, path_in(network, name), layer, dropout)
        if lora.part(part):
            freeze(network)


def _layers_alike(has_lengths: bool, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """The layers that are DoRA, or those that are not."""
    return {name: layer for name, layer in layers.items() if (layer.magnitude is not None) is has_lengths}


def _inject_finished(network: Any, peft_lora: PeftLora, dropout: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import set_peft_model_state_dict

    config, tensors = peft_lora
    with shown_as_float32([network]), warnings.catch_warnings():
        # The layers of the other kind, where a network has both, are part of the same adapter.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(LoraConfig(**config, lora_dropout=dropout), network, adapter_name=LORA_NAME)
    for name, parameter in network.named_parameters():
        # On weights in bfloat16 they are in that, too, which would round what was learnt.
        if any(mark in name for mark in ADAPTER_MARKS):
            parameter.data = parameter.data.float()
    set_peft_model_state_dict(network, tensors, adapter_name=LORA_NAME)
    network.to(network.device)


def _attach_scheduled(networks: Networks, lora: LoraWeights, dropout: float) -> None:
    from dbcli.diffusion.adapters.lora_layers import wrap_finished

    rest: dict[str, dict[str, Layer]] = {}
    for part, network in networks.items():
        rest[part] = {}
        for name, layer in lora.part(part).items():
            if isinstance(layer, LoraLayer) and layer.schedule is not None:
                wrap_finished(network, path_in(network, name), layer, dropout=dropout)
            else:
                rest[part][name] = layer
        if lora.part(part):
            freeze(network)
    attach_lora(networks, LoraWeights(rest), dropout=dropout)


def _wrap_finished(network: Any, path: str, layer: ProductLayer, dropout: float) -> None:
    from dbcli.diffusion.adapters.product_layers import wrap

    if layer.magnitude is not None:
        raise UnsupportedFile(
            "This adapter has DoRA's magnitudes on LoKr or LoHa: it can be drawn with, and not be trained further."
        )
    wrap(network, path, layer, dropout=dropout)


def merge_lora(network: Any) -> None:
    """Adds every low-rank layer of a network to the weights beneath it, and takes the layers out again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: module for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, layer in layers.items():
        beneath = layer.get_base_layer()
        # Half precision, in which a weight may be kept, would round most of a change away.
        beneath.weight.data = beneath.weight.data.float()
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, beneath)


def make_inversion(base: Base, words: Mapping[str, WordVectors]) -> Trainable:
    """Adds each subject's word to a base that is frozen otherwise; its vectors are what learns, in float32.

    "vectors.<subject>" are those of the first text encoder, "text_encoder_2 vectors.<subject>" those of another.
    Text encoders have to be run at every step, though none of their weights learns: their input changes.
    """
    freeze(*base.tunable.values())
    tensors: dict[str, torch.nn.Parameter] = {}
    for subject, vectors in zip(words, add_words(base, list(words.values())), strict=True):
        for name, parameter in zip(_vector_names(base, subject), vectors.values(), strict=True):
            parameter.requires_grad_(True)
            tensors[name] = parameter
    return Trainable("textual-inversion", tensors, [], trains_text=True)


def _vector_names(base: Base, subject: str) -> list[str]:
    """The names of a word's tensors, one a text encoder."""
    first, *others = base.encoders
    return [f"{VECTORS}{subject}", *(f"{encoder} {VECTORS}{subject}" for encoder in others)]


def learnt_vectors(base: Base, trainable: Trainable, subject: str, word: str) -> WordVectors:
    """A subject's vectors as they are now, float32 on the CPU, under the word that they stand for."""
    first, *others = [trainable.tensors[name].detach().cpu() for name in _vector_names(base, subject)]
    return WordVectors(word, first, dict(zip(list(base.encoders)[1:], others, strict=True)))
