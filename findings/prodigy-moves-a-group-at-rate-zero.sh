#!/usr/bin/env bash
# Guess: setting a group's rate to 0, the one rate of its own that Prodigy lets a group have, freezes the group. Scripts do it
# to stop the text encoder halfway and go on with the UNet.
# Seen: it freezes the group's moments, not its weights. The second half of `step` moves every weight that has a gradient
# by its moments times the rate of the whole, and never asks for the group's: a weight that had come to rest by its target
# of 3 goes on at the speed it had and is at 4.7 a hundred steps later. One that never had a rate has no moments to move
# by, but weight decay takes it all the same.
# Versions: prodigyopt 1.1.2, torch 2.14.1.
# Output: rate 0 after 100 of 200 steps: 3.004 became 4.742, the other group 3.000
# Output: Using decoupled weight decay (a line that Prodigy prints)
# Output: rate 0 from the start, weight decay 0.1: 1.000 became 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 prodigyopt==1.1.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from prodigyopt import Prodigy

TARGET = 3.0


def train(steps: int, stop: int, weight_decay: float) -> tuple[float, float, float]:
    """The second group's weight when its rate becomes 0 and at the end, and the first group's at the end."""
    unet, text_encoder = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    groups = [{"params": [unet]}, {"params": [text_encoder]}]
    optimiser = Prodigy(groups, lr=1.0, weight_decay=weight_decay)
    stopped = text_encoder[0].item()
    for step in range(steps):
        if step == stop:
            optimiser.param_groups[1]["lr"] = 0.0
            stopped = text_encoder[0].item()
        optimiser.zero_grad()
        loss = ((unet - TARGET) ** 2).sum() + ((text_encoder - TARGET) ** 2).sum()
        loss.backward()
        optimiser.step()
    return stopped, text_encoder[0].item(), unet[0].item()


stopped, end, other = train(steps=200, stop=100, weight_decay=0.0)
print(f"rate 0 after 100 of 200 steps: {stopped:.3f} became {end:.3f}, the other group {other:.3f}")
assert abs(stopped - TARGET) < 0.1 and abs(other - TARGET) < 0.1 and end > TARGET + 1
stopped, end, _ = train(steps=200, stop=0, weight_decay=0.1)
print(f"rate 0 from the start, weight decay 0.1: {stopped:.3f} became {end:.3f}")
assert stopped == 1.0 and abs(end) < 0.01
PYTHON
