"""sd-scripts: its checkpoint loader, and `merge_to` of `networks/lora.py`, from a folder of its code."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from comparing import compared, greatest, job, run, tensors_of

JOB = job()
sys.path.insert(0, JOB["client"])

from library import model_util, original_unet  # noqa: E402
from networks import lora as networks_lora  # noqa: E402

# The widths are written into its code; narrow models have the same blocks.
WIDTHS = JOB["widths"]
model_util.UNET_PARAMS_CHANNEL_MULT = [width // WIDTHS[0] for width in WIDTHS]
original_unet.BLOCK_OUT_CHANNELS = tuple(WIDTHS)


def states(text: Any, vae: Any, unet: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name.removeprefix('text_model.')}": tensor
        for part, network in (("unet", unet), ("text_encoder", text), ("vae", vae))
        for name, tensor in network.state_dict().items()
    }


def load(path: str) -> tuple[Any, Any, Any]:
    return model_util.load_models_from_stable_diffusion_checkpoint(
        False, path, "cpu", unet_use_linear_projection_in_v2=False
    )


def whole(case: dict[str, Any]) -> dict[str, Any]:
    return greatest(states(*load(case["file"])), tensors_of(case["expected"]["diffusers"]))


BASE = load(JOB["base_checkpoint"])


def adapter(case: dict[str, Any]) -> dict[str, Any]:
    text, vae, unet = copy.deepcopy(BASE)
    network, weights = networks_lora.create_network_from_weights(1.0, case["file"], vae, text, unet, for_inference=True)
    network.merge_to(text, unet, weights, torch.float32, "cpu")
    return compared(states(text, vae, unet), case, "diffusers")


READ = {"checkpoint": whole, "lora": adapter, "kohya": adapter}
run(lambda case: READ[case["kind"]](case), "sd-scripts", [case for case in JOB["cases"] if case["kind"] in READ])
