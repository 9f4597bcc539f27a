#!/usr/bin/env bash
# Guess: EMAModel with use_ema_warmup=False averages by the decay that it was given from the first step on.
# Seen: without that warmup it has another one: step k averages by k / (9 + k) for as long as that is below the decay. A decay of
# 0.99 is reached at step 892, 0.999 not before step 8992: in a run of 2000 steps 0.999, 0.9999 and 0.99999 give the same weights
# bit for bit, and the average is over the latter part of the run whatever was asked for.
# Versions: diffusers 0.42.1, torch 2.14.1.
# Output: differs from decay 0.9999 at step: 0.9: 82, 0.99: 892, 0.999: never, 0.99999: never
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers.training_utils import EMAModel

STEPS = 2000


def averages(decay: float) -> list[torch.Tensor]:
    """The average after each step of a weight that walks at random."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(100))
    average = EMAModel([weight], decay=decay, use_ema_warmup=False)
    found = []
    for _ in range(STEPS):
        with torch.no_grad():
            weight.add_(torch.randn(100), alpha=0.01)
        average.step([weight])
        found.append(average.shadow_params[0].clone())
    return found


usual = averages(0.9999)
first = {}
for decay in (0.9, 0.99, 0.999, 0.99999):
    differ = [not torch.equal(one, other) for one, other in zip(usual, averages(decay), strict=True)]
    first[decay] = differ.index(True) + 1 if any(differ) else "never"
print("differs from decay 0.9999 at step: " + ", ".join(f"{decay}: {step}" for decay, step in first.items()))
assert first == {0.9: 82, 0.99: 892, 0.999: "never", 0.99999: "never"}
PYTHON
