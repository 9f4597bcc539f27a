#!/usr/bin/env bash
# Guess: a CLIP text encoder without a torch.nn.Dropout among its modules draws no random numbers in training mode, so
# that a run which looks for such modules to decide whether dropout has to be seeded can be resumed to the bit.
# Seen: transformers' CLIPAttention holds attention_dropout as a number and drops by a function. No module says so, and
# two passes over one prompt differ in training mode.
# Versions: transformers 5.24.0, torch 2.14.1.
# Output: 0 modules of dropout; two passes differ by 2.601 in training mode, by 0.000 in evaluation
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import CLIPTextConfig, CLIPTextModel

torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
words = {"vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98}
model = CLIPTextModel(CLIPTextConfig(**sizes, **words, attention_dropout=0.5))
tokens = torch.tensor([[97, 1, 2, 3, 98]])


def difference(mode):
    mode()
    with torch.no_grad():
        one, other = (model(tokens).last_hidden_state for _ in range(2))
    return (one - other).abs().max().item()


modules = sum(isinstance(part, torch.nn.Dropout) for part in model.modules())
training, evaluation = difference(model.train), difference(model.eval)
print(f"{modules} modules of dropout; two passes differ by {training:.3f} in training mode, by {evaluation:.3f} in evaluation")
assert modules == 0 and training > 0.1 and evaluation == 0.0
PYTHON
