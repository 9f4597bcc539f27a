#!/usr/bin/env bash
# Guess: a LoRA on `out_proj`, a name that most lists of target modules hold, adapts the attention of open_clip's encoders
# as it does that of transformers' CLIP; and merging it changes nothing of what the model computes.
# Seen: open_clip builds on torch.nn.MultiheadAttention, which never calls its out_proj but takes the weight out of it.
# PEFT wraps it, counts its weights as trainable, and the adapter takes no part: the output is the base model's to the bit
# and its weights get no gradient. Merged, the same adapter does change the output.
# Versions: open_clip_torch 3.3.0, peft 0.21.2, transformers 5.24.0, torch 2.14.1.
# Output: adapter changes the output by 0.000, merged by 8.370; weights with a gradient: 0 of 6 on out_proj, 6 of 6 on c_fc
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0 peft==0.21.2 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from open_clip.model import CLIP
from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
model = CLIP(
    embed_dim=16,
    vision_cfg={"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
    text_cfg={"layers": 3, "width": 16, "heads": 2, "context_length": 8, "vocab_size": 50},
)
tokens = torch.randint(1, 49, (2, 8))
base = model.encode_text(tokens).detach()
targets = r"transformer.*\.(out_proj|c_fc)"
adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
adapted.encode_text(tokens).square().sum().backward()
reached = {
    place: [weight.grad is not None for name, weight in adapted.named_parameters() if weight.requires_grad and place in name]
    for place in ("out_proj", "c_fc")
}
adapted = get_peft_model(adapted.unload(), LoraConfig(r=2, target_modules=r"transformer.*\.out_proj", init_lora_weights=False))
with torch.no_grad():
    beside = torch.dist(base, adapted.encode_text(tokens)).item()
    merged = torch.dist(base, adapted.merge_and_unload().encode_text(tokens)).item()
counts = ", ".join(f"{sum(found)} of {len(found)} on {place}" for place, found in reached.items())
print(f"adapter changes the output by {beside:.3f}, merged by {merged:.3f}; weights with a gradient: {counts}")
assert beside == 0.0 and merged > 0.1
assert counts == "0 of 6 on out_proj, 6 of 6 on c_fc"
PYTHON
