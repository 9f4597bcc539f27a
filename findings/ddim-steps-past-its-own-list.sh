#!/usr/bin/env bash
# Guess: DDIMScheduler.step goes from each timestep of the list to the next one, so that a denoiser that knows the image
# arrives at it for every number of steps.
# Seen: it goes back by the whole number 1000 // steps. With "trailing" spacing, whose timesteps lie 1000 / steps apart, the
# image is missed wherever steps do not divide 1000 well: at 150 steps by 0.09, at 600 by 0.25 of a range of 2; at 50 by 0.
# Versions: diffusers 0.42.1, torch 2.14.1.
# Output: 50 steps: 0.0000, 150 steps: 0.0945, 600 steps: 0.2499
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import DDIMScheduler

torch.manual_seed(0)
image, noise = torch.rand(1, 1, 8, 8) * 2 - 1, torch.randn(1, 1, 8, 8)


def miss(steps: int) -> float:
    """How far a denoiser that knows the image ends from it."""
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(steps)
    alphas = scheduler.alphas_cumprod
    first = alphas[scheduler.timesteps[0]]
    sample = first.sqrt() * image + (1 - first).sqrt() * noise
    for timestep in scheduler.timesteps:
        alpha = alphas[timestep]
        predicted = (sample - alpha.sqrt() * image) / (1 - alpha).sqrt()
        sample = scheduler.step(predicted, timestep, sample).prev_sample
    return (sample - image).abs().max().item()


misses = {steps: miss(steps) for steps in (50, 150, 600)}
print(", ".join(f"{steps} steps: {value:.4f}" for steps, value in misses.items()))
assert misses[50] < 1e-4 and misses[150] > 0.05 and misses[600] > 0.1
PYTHON
