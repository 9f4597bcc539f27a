#!/usr/bin/env bash
# Guess: `timestep_spacing="trailing"` gives exactly as many timesteps as steps were asked for, all of 0 to 999.
# Seen: for 62 of the counts from 1 to 1000 (61, 103, 121, 122, 201, ...) DDIMScheduler gives one more, and the last is -1:
# the list comes from an arange over a fraction, whose end is sometimes reached by rounding.
# Versions: diffusers 0.42.1, torch 2.14.1, numpy 2.4.6.
# Output: 62 counts with a timestep too many, the first: [61, 103, 121, 122, 201]; 61 steps end with [32, 15, -1]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from diffusers import DDIMScheduler

scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
odd = []
for count in range(1, 1001):
    scheduler.set_timesteps(count)
    if len(scheduler.timesteps) != count:
        assert len(scheduler.timesteps) == count + 1 and scheduler.timesteps[-1] == -1
        odd.append(count)
scheduler.set_timesteps(61)
last = scheduler.timesteps[-3:].tolist()
print(f"{len(odd)} counts with a timestep too many, the first: {odd[:5]}; 61 steps end with {last}")
assert (len(odd), odd[:5], last[-1]) == (62, [61, 103, 121, 122, 201], -1)
PYTHON
