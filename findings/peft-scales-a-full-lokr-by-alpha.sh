#!/usr/bin/env bash
# Guess: the same LoKr tensors with the same alpha mean the same addition to LyCORIS, whose format it is, and to PEFT, which
# took the method and the tensors' names from there.
# Seen: where neither Kronecker factor is split, LyCORIS sets alpha to the rank, for there is no rank to scale by, and adds
# the product as it is. PEFT adds alpha / r of it, with the r that is in its configuration and in no tensor. At r 8 and alpha 1
# its addition is an eighth, for a layer of 64 x 64; at r 2, where the second factor is split, both add the same.
# Versions: peft 0.21.2, lycoris-lora 4.1.3, torch 2.14.1, transformers 5.24.0.
# Output: r 8 (lokr_w1, lokr_w2): PEFT adds 0.125 of what LyCORIS adds
# Output: r 2 (lokr_w1, lokr_w2_a, lokr_w2_b): PEFT adds 1.000 of what LyCORIS adds
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 peft==0.21.2 transformers==5.24.0 lycoris-lora==4.1.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import logging

import torch
from lycoris.modules import get_module, make_module
from peft import LoKrConfig, get_peft_model

logging.disable(logging.WARNING)
shares = []
for rank in (8, 2):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False))
    config = LoKrConfig(r=rank, alpha=1, target_modules=["0"], init_weights=False)
    adapted = get_peft_model(model, config)
    tensors = {
        name.split(".")[-2]: weight.detach() for name, weight in adapted.named_parameters() if "lokr" in name
    }
    names = ", ".join(tensors)
    state = {f"layer.{name}": weight for name, weight in tensors.items()} | {"layer.alpha": torch.tensor(1.0)}
    kind, found = get_module(state, "layer")
    in_lycoris = make_module(kind, found, "layer", torch.nn.Linear(64, 64, bias=False)).get_weight((64, 64))
    in_peft = adapted.base_model.model[0].get_delta_weight("default")
    shares.append((in_peft.norm() / in_lycoris.norm()).item())
    assert torch.allclose(in_peft / in_peft.norm(), in_lycoris / in_lycoris.norm(), atol=1e-6)
    print(f"r {rank} ({names}): PEFT adds {shares[-1]:.3f} of what LyCORIS adds")
assert abs(shares[0] - 1 / 8) < 1e-4 and abs(shares[1] - 1) < 1e-4
PYTHON
