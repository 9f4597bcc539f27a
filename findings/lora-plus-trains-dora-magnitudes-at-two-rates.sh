#!/usr/bin/env bash
# Guess: LoRA+ gives the B matrices a rate of their own and every other weight the plain one; at any rate the same to the same
# kind of weight.
# Seen: PEFT's create_loraplus_optimizer counts a weight that has one dimension with the B matrices. A DoRA's magnitudes have one
# for a linear layer and four for a convolution: with a ratio of 16 those of the attention are trained at 16 times the rate
# and those of the convolutions at the plain one.
# Versions: peft 0.21.2, transformers 5.24.0, torch 2.14.1.
# Output: linear: A 1, B 16, magnitude 16; convolution: A 1, B 16, magnitude 1 times the rate
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 peft==0.21.2 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

RATE = 1e-4
model = torch.nn.ModuleDict({"linear": torch.nn.Linear(16, 16), "convolution": torch.nn.Conv2d(16, 16, 3)})
model = get_peft_model(model, LoraConfig(r=4, use_dora=True, target_modules=["linear", "convolution"]))
optimiser = create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=16)
rates = {id(weight): group["lr"] for group in optimiser.param_groups for weight in group["params"]}
kinds = {"lora_A": "A", "lora_B": "B", "lora_magnitude_vector": "magnitude"}
times = {}
for name, weight in model.named_parameters():
    if weight.requires_grad:
        *_, layer, kind, _adapter, _weight = name.split(".")
        times[layer, kinds[kind]] = round(rates[id(weight)] / RATE)
parts = [
    f"{layer}: " + ", ".join(f"{kind} {times[layer, kind]}" for kind in kinds.values()) for layer in ("linear", "convolution")
]
print("; ".join(parts) + " times the rate")
assert times["linear", "magnitude"] == 16 and times["convolution", "magnitude"] == 1
PYTHON
