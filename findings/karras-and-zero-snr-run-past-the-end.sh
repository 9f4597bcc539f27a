#!/usr/bin/env bash
# Guess: DPMSolverMultistepScheduler draws with use_karras_sigmas and rescale_betas_zero_snr together, for any number of steps.
# Seen: at 25, 30, 50 and 100 steps the last step raises an IndexError, after all the work. The first two of the Karras
# timesteps round to the same number, and a timestep found twice is taken for the second (so that image-to-image may begin in
# the middle): the whole list is then walked one place too far. set_begin_index(0) before the first step avoids it.
# Versions: diffusers 0.42.1, torch 2.14.1.
# Output: 10 draws, 20 draws, 25 IndexError, 50 IndexError; with set_begin_index(0) 25 draws, 50 draws
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import DPMSolverMultistepScheduler


def outcome(steps: int, begin: bool) -> str:
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        use_karras_sigmas=True,
        rescale_betas_zero_snr=True,
    )
    scheduler.set_timesteps(steps)
    if begin:
        scheduler.set_begin_index(0)
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    try:
        for timestep in scheduler.timesteps:
            sample = scheduler.step(torch.zeros_like(sample), timestep, sample).prev_sample
    except IndexError:
        return "IndexError"
    return "draws"


plain = {steps: outcome(steps, begin=False) for steps in (10, 20, 25, 50)}
begun = {steps: outcome(steps, begin=True) for steps in (25, 50)}
print(
    ", ".join(f"{steps} {how}" for steps, how in plain.items())
    + "; with set_begin_index(0) "
    + ", ".join(f"{steps} {how}" for steps, how in begun.items())
)
assert plain == {10: "draws", 20: "draws", 25: "IndexError", 50: "IndexError"}
assert begun == {25: "draws", 50: "draws"}
PYTHON
