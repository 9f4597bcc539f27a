#!/usr/bin/env bash
# Guess: a LoRA of a convolution is a plain down and a plain up convolution beside it, whatever is special about that one:
# its output grows with B, and merged into the weight it gives what it gave beside it.
# Seen: PEFT makes both halves by the class of the convolution beneath, type(base_layer)(...). timm's StdConv2d, the convolution
# of BiT's networks, standardises its weight at every pass, and so do the halves of its LoRA: ten times B gives nearly the
# same output, and what is merged, A and B as they are stored, is another network. A LoRA that has learnt nothing shows none
# of it: its B is zero either way.
# Versions: peft 0.21.2 (peft/tuners/lora/layer.py, _ConvNd.update_layer), timm 1.0.31, torch 2.14.1, transformers 5.24.0.
# Output: halves of Conv2d: Conv2d; 10 x B changes what is added 10.0 times; merged differs by 0.00 of the output
# Output: halves of StdConv2d: StdConv2d; 10 x B changes what is added 1.0 times; merged differs by 0.90 of the output
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 peft==0.21.2 transformers==5.24.0 timm==1.0.31 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from timm.layers import StdConv2d

seen = {}
for kind in (torch.nn.Conv2d, StdConv2d):
    torch.manual_seed(0)
    model = get_peft_model(torch.nn.Sequential(kind(8, 16, 3, padding=1)), LoraConfig(r=4, target_modules=["0"]))
    layer, images = model.base_model.model[0], torch.randn(2, 8, 6, 6)
    names = {type(half["default"]).__name__ for half in (layer.lora_A, layer.lora_B)}
    with torch.no_grad():
        plain = model(images)
        layer.lora_B["default"].weight.normal_(std=0.01)
        once = model(images) - plain
        layer.lora_B["default"].weight.mul_(10)
        adapted = model(images)
        grown = ((adapted - plain).norm() / once.norm()).item()
        apart = ((model.merge_and_unload()(images) - adapted).norm() / adapted.norm()).item()
    seen[kind.__name__] = names, grown, apart
    print(
        f"halves of {kind.__name__}: {', '.join(names)}; 10 x B changes what is added {grown:.1f} times; "
        f"merged differs by {apart:.2f} of the output"
    )
names, grown, apart = seen["Conv2d"]
assert names == {"Conv2d"} and abs(grown - 10) < 1e-3 and apart < 1e-5
names, grown, apart = seen["StdConv2d"]
assert names == {"StdConv2d"} and grown < 2 and apart > 0.5
PYTHON
