#!/usr/bin/env bash
# Guess: a LoKr of one factor has the same two matrices in LyCORIS, whose format it is, and in PEFT: of the two numbers into which
# a width is split the first is the smaller one, as the documentation of both functions says.
# Seen: where the factor divides the width, PEFT returns factor and width / factor as they come, so the first is the larger one as
# soon as the factor is above the root of the width; LyCORIS puts them in order. A LoKr of factor 32 on a layer of 320 x 320 has a
# first matrix of 10 x 10 in LyCORIS and of 32 x 32 in PEFT, and neither reads the other's. With a factor of 8 both agree.
# Versions: peft 0.21.2 (peft/tuners/lokr/layer.py, factorization), lycoris-lora 4.1.3, torch 2.14.1, transformers 5.24.0.
# Output: factor 8: LyCORIS splits 320 into (8, 40), PEFT into (8, 40); the first matrix has 8 x 8 in LyCORIS, 8 x 8 in PEFT
# Output: factor 32: LyCORIS splits 320 into (10, 32), PEFT into (32, 10); the first matrix has 10 x 10 in LyCORIS, 32 x 32 in PEFT
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 peft==0.21.2 transformers==5.24.0 lycoris-lora==4.1.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import logging

import torch
from lycoris.functional.general import factorization as in_lycoris
from lycoris.modules.lokr import LokrModule
from peft import LoKrConfig, get_peft_model
from peft.tuners.lokr.layer import factorization as in_peft

logging.disable(logging.WARNING)
for factor, is_one in ((8, True), (32, False)):
    theirs = LokrModule("layer", torch.nn.Linear(320, 320), lora_dim=4, alpha=4, factor=factor)
    config = LoKrConfig(r=4, alpha=4, target_modules=["0"], decompose_factor=factor)
    layer = get_peft_model(torch.nn.Sequential(torch.nn.Linear(320, 320)), config).base_model.model[0]
    shapes = [tuple(theirs.lokr_w1.shape), tuple(layer.lokr_w1["default"].shape)]
    print(
        f"factor {factor}: LyCORIS splits 320 into {in_lycoris(320, factor)}, PEFT into {in_peft(320, factor)}; "
        f"the first matrix has {' x '.join(map(str, shapes[0]))} in LyCORIS, {' x '.join(map(str, shapes[1]))} in PEFT"
    )
    assert (shapes[0] == shapes[1]) == is_one and (in_lycoris(320, factor) == in_peft(320, factor)) == is_one
PYTHON
