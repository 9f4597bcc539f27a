#!/usr/bin/env bash
# Guess: a scheduler made by from_config with rescale_betas_zero_snr: true either rescales its betas or refuses.
# Seen: HeunDiscreteScheduler and PNDMScheduler keep the setting in their config, where it reads as true, and do not follow it: their last
# cumulative alpha is 0.0047 as without it, while DDIMScheduler has 0. A model trained for zero terminal SNR is then drawn
# from the wrong noise.
# Versions: diffusers 0.42.1, torch 2.14.1.
# Output: DDIM True 0.0000, Heun True 0.0047, PNDM True 0.0047
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from diffusers import DDIMScheduler, HeunDiscreteScheduler, PNDMScheduler

config = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "rescale_betas_zero_snr": True,
}
seen = {}
for kind in (DDIMScheduler, HeunDiscreteScheduler, PNDMScheduler):
    scheduler = kind.from_config(config)
    said = scheduler.config.get("rescale_betas_zero_snr")
    name = kind.__name__.removesuffix("Scheduler").removesuffix("Discrete")
    seen[name] = (said, round(scheduler.alphas_cumprod[-1].item(), 4))
print(", ".join(f"{name} {said} {last:.4f}" for name, (said, last) in seen.items()))
assert seen == {"DDIM": (True, 0.0), "Heun": (True, 0.0047), "PNDM": (True, 0.0047)}
PYTHON
