#!/usr/bin/env bash
# Guess: what LyCORIS adds to a weight when it merges a LoKr or a LoHa is what its layer adds to an output while it is
# trained: alpha / rank times the product of the factors.
# Seen: merged, it is (alpha / rank) squared times the product: get_weight scales it, and get_diff_weight, by which
# merge_to and get_merged_weight go, scales it once more. At alpha 1 and rank 4 a merged model has a quarter of what was
# trained; at alpha = rank nothing shows.
# Versions: lycoris-lora 4.1.3, torch 2.14.1.
# Output: loha: merged 0.250 of what was trained, lokr: merged 0.250 of what was trained
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 lycoris-lora==4.1.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule


def share(kind: type) -> float:
    """What is merged of what the layer adds in training, for random factors of rank 4 and alpha 1."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(256, 256, bias=False)
    before = layer.weight.detach().clone()
    adapter = kind("one", layer, multiplier=1.0, lora_dim=4, alpha=1.0)
    for factor in adapter.parameters():
        torch.nn.init.normal_(factor, std=0.1)
    adapter.apply_to()
    rows = torch.eye(256)
    with torch.no_grad():
        trained = layer(rows).T - before
    adapter.restore()
    with torch.no_grad():
        adapter.merge_to(1.0)
    merged = layer.weight.detach() - before
    return (merged.norm() / trained.norm()).item()


shares = {"loha": share(LohaModule), "lokr": share(LokrModule)}
print(", ".join(f"{name}: merged {value:.3f} of what was trained" for name, value in shares.items()))
assert all(abs(value - 0.25) < 1e-3 for value in shares.values())
PYTHON
