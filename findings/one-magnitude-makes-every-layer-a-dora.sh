#!/usr/bin/env bash
# Guess: a LoRA file with a DoRA magnitude for one of its layers is a DoRA in that layer, and a plain LoRA in all others.
# Seen: diffusers makes one configuration of the whole file, with DoRA wherever one magnitude is found. Every other layer
# is given the lengths of the base's own weights, and what the LoRA added to their length is taken off again. The log
# names the magnitudes as missing, and loading goes on; with low_cpu_mem_usage, as PEFT's default is, it ends in a
# RuntimeError instead.
# Versions: diffusers 0.42.1, peft 0.21.2, transformers 5.24.0, torch 2.14.1.
# Output: a plain layer's output is 10.003 long by its own file, 3.167 beside one magnitude of another layer
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import UNet2DConditionModel


def fresh():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    )


def length(file):
    unet = fresh()
    unet.load_lora_adapter(dict(file), prefix=None, low_cpu_mem_usage=False)
    last = unet.get_submodule(layers[-1])
    with torch.no_grad():
        return last(torch.randn(2, last.in_features, generator=torch.Generator().manual_seed(4))).norm().item()


base, draw, plain = fresh(), torch.Generator().manual_seed(1), {}
layers = [name for name, _ in base.named_modules() if name.endswith(("to_q", "to_v"))]
for name in layers:
    outputs, inputs = base.get_submodule(name).weight.shape
    plain[f"{name}.lora_A.weight"] = torch.randn(4, inputs, generator=draw)
    plain[f"{name}.lora_B.weight"] = 0.3 * torch.randn(outputs, 4, generator=draw)
magnitude = 1.5 * base.get_submodule(layers[0]).weight.detach().norm(dim=1)
alone, beside = length(plain), length(plain | {f"{layers[0]}.lora_magnitude_vector": magnitude})
print(f"a plain layer's output is {alone:.3f} long by its own file, {beside:.3f} beside one magnitude of another layer")
assert beside < 0.5 * alone
PYTHON
