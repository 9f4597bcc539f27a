#!/usr/bin/env bash
# Guess: an adapter at strength 0 leaves the base model's image, DoRA or not, and the strengths between lead there.
# Seen: PEFT scales the product of a DoRA's factors only. Its magnitudes, which replace the weight's own, stay as trained, so
# set_adapters(name, 0.0) keeps a part of what was trained: here over a quarter. Only disabling the adapter gives the base back.
# Versions: diffusers 0.42.1, peft 0.21.2, transformers 5.24.0, torch 2.14.1.
# Output: LoRA at strength 0: 0.00 of its effect is left, disabled: 0.00
# Output: DoRA at strength 0: 0.27 of its effect is left, disabled: 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(32, 64),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=16,
    attention_head_dim=8,
    norm_num_groups=8,
)
latents, prompt = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 16)


def predicted() -> torch.Tensor:
    return unet(latents, 10, prompt).sample


base = predicted().detach()
left = {}
for name, use_dora in (("LoRA", False), ("DoRA", True)):
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, use_dora=use_dora, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), name)
    weights = [weight for key, weight in unet.named_parameters() if "lora_" in key]
    optimiser = torch.optim.AdamW(weights, lr=0.02)
    for _ in range(20):
        optimiser.zero_grad()
        (predicted() - 1).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        effect = torch.dist(predicted(), base)
        unet.set_adapters(name, 0.0)
        left[name] = (torch.dist(predicted(), base) / effect).item()
        unet.disable_adapters()
        disabled = (torch.dist(predicted(), base) / effect).item()
        unet.enable_adapters()
    unet.delete_adapters(name)
    print(f"{name} at strength 0: {left[name]:.2f} of its effect is left, disabled: {disabled:.2f}")
    assert disabled < 1e-4
assert left["LoRA"] < 1e-4 and left["DoRA"] > 0.1
PYTHON
