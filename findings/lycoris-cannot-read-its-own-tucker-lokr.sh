#!/usr/bin/env bash
# Guess: LyCORIS loads the LoKr files that it writes.
# Seen: it finds a LoKr's rank and shape in its tensors, and takes a convolution for a linear layer. With Tucker (use_tucker)
# the second factor's halves are kept the other way round, as (rank, size), so that its size is taken for the rank; without
# it, the input's size is counted with the kernel's nine places in it, which happens to end well for most shapes. Of eleven
# 3x3 convolutions that Stable Diffusion's UNet has, none is read back with Tucker and ten are without: 1920 to 640 is not,
# so no file that covers all of them is.
# Versions: lycoris-lora 4.1.3, torch 2.14.1.
# Output: use_tucker=False: 10 of 11 read back, the others raise RuntimeError
# Output: use_tucker=True: 0 of 11 read back, the others raise AttributeError, RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 lycoris-lora==4.1.3 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/lokr.safetensors" <<'PYTHON'
import logging
import sys

import torch
from lycoris import LycorisNetwork, create_lycoris, create_lycoris_from_weights

logging.disable(logging.WARNING)
CHANNELS = [
    (4, 320), (320, 320), (320, 640), (640, 640), (640, 1280), (1280, 1280), (2560, 1280), (1920, 640), (960, 320),
    (640, 320), (320, 4),
]  # fmt: skip


def fault(channels: tuple[int, int], use_tucker: bool) -> str:
    """What loading a file that was just saved raises; empty where the layer then computes what it did before."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(*channels, 3))
    rows = torch.randn(1, channels[0], 3, 3)
    shape = {"linear_dim": 4, "linear_alpha": 4, "conv_dim": 4, "conv_alpha": 4}
    network = create_lycoris(model, 1.0, algo="lokr", use_tucker=use_tucker, **shape)
    for factor in network.loras[0].parameters():
        torch.nn.init.normal_(factor, std=0.1)
    network.apply_to()
    with torch.no_grad():
        before = model(rows)
    network.save_weights(sys.argv[1], torch.float32, {})
    network.restore()
    try:
        loaded, _ = create_lycoris_from_weights(1.0, sys.argv[1], model)
    except (AttributeError, RuntimeError) as error:
        return type(error).__name__
    loaded.apply_to()
    with torch.no_grad():
        assert torch.equal(model(rows), before)
    return ""


LycorisNetwork.apply_preset({"target_module": ["Conv2d"]})
seen = []
for use_tucker in (False, True):
    faults = [fault(channels, use_tucker) for channels in CHANNELS]
    seen.append(faults.count(""))
    names = ", ".join(sorted(set(faults) - {""}))
    print(f"use_tucker={use_tucker}: {seen[-1]} of {len(CHANNELS)} read back, the others raise {names}")
assert seen == [10, 0]
PYTHON
