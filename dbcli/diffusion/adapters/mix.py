"""Several LoRAs in one model: each layer gets the weighted sum of what every LoRA alone would change.

W + w1 dW1 + w2 dW2, where dW is the whole change of a layer by one LoRA (for DoRA too), so that a weight of 0 is the
same as leaving a LoRA out, and the order in which they are named does not count.
"""

from collections.abc import Sequence

import torch

from dbcli.diffusion.adapters.attach import freeze
from dbcli.diffusion.adapters.lora_layers import refuse_schedule
from dbcli.diffusion.families.family import Networks
from dbcli.diffusion.formats.lora import Layer, LoraLayer, LoraWeights
from dbcli.diffusion.formats.text_names import path_in


def layer_change(layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """What one layer of an adapter changes, float32 of `weight`'s shape.

    Plain: dW = (alpha / rank) up down (Hu et al. 2022, section 4.1), or LoKr's or LoHa's product of factors. DoRA:
    dW = m V / |V| - W with V = W + that, the length taken over everything but the outputs (Liu et al. 2024, equation
    5), or over everything but the inputs.
    """
    refuse_schedule(layer.schedule if isinstance(layer, LoraLayer) else None)
    original: torch.Tensor = weight.detach().float()
    change: torch.Tensor = layer.each(lambda part: part.to(original.device).float()).addition(original.shape)
    if layer.magnitude is None:
        return change
    turned = original + change
    # Rows are outputs, or inputs where those are what has a length.
    rows = turned.transpose(0, 1) if layer.by_input else turned
    factor = layer.magnitude.to(original.device).float() / rows.flatten(1).norm(dim=1)
    scaled: torch.Tensor = rows * factor.reshape(-1, *([1] * (rows.dim() - 1)))
    return (scaled.transpose(0, 1) if layer.by_input else scaled) - original


@torch.no_grad()
def merge_loras(networks: Networks, loras: Sequence[tuple[LoraWeights, float]]) -> None:
    """Adds weighted LoRAs into the networks' own weights, in float32; the networks stay frozen."""
    for part, network in networks.items():
        # Every change is measured from the base before any is added: the second must not stand on the first.
        for name in sorted({name for lora, _ in loras for name in lora.part(part)}):
            module = network.get_submodule(path_in(network, name))
            changes = [
                share * layer_change(lora.part(part)[name], module.weight)
                for lora, share in loras
                if name in lora.part(part)
            ]
            # Half precision, in which a weight may be kept, would round most of a change away.
            module.weight.data = module.weight.float() + sum(changes[1:], changes[0])
        freeze(network)
