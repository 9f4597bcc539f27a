"""What another program leaves out of a base in one file and of a LoRA for it: `unloaded_keys.py JOB.json`.

Runs in that program's own environment, and imports nothing of this project.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from comparing import job

JOB = job()
Told = dict[str, Any]


class Warnings(logging.Handler):
    """Keeps what a program warns of, or only logs, that is about keys."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(word in text.lower() for word in ("missing", "unexpected", "left over", "not loaded", "not_loaded")):
            self.lines.append(text[:300])


HEARD = Warnings()
logging.getLogger().addHandler(HEARD)


def heard() -> list[str]:
    lines, HEARD.lines = HEARD.lines, []
    return lines


def comfyui() -> Told:
    sys.path.insert(0, JOB["client"])
    sys.argv = [sys.argv[0], "--cpu", "--fp16-unet", "--fp16-vae", "--fp16-text-enc"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.lora
    import comfy.sd
    import comfy.utils
    import comfyui_version

    model, clip, vae = comfy.sd.load_checkpoint_guess_config(JOB["base"])[:3]
    told: Told = {"version": f"ComfyUI {comfyui_version.__version__}", "base": heard()}
    told["seen as"] = type(model.model.model_config).__name__
    assert clip is not None and vae is not None
    for file in JOB["loras"]:
        tensors = comfy.utils.load_torch_file(file, safe_load=True)
        patched, words = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
        told[file] = {"layers": len(patched.patches) + len(words.patcher.patches), "not loaded": heard()}
    return told


def sd_scripts() -> Told:
    sys.path.insert(0, JOB["client"])
    import torch
    from library import sdxl_model_util
    from networks import lora

    kind = sdxl_model_util.MODEL_VERSION_SDXL_BASE_V1_0
    te1, te2, vae, unet, *_ = sdxl_model_util.load_models_from_sdxl_checkpoint(kind, JOB["base"], "cpu", torch.float16)
    told: Told = {"version": "sd-scripts", "seen as": type(unet).__name__, "base": heard()}
    for file in JOB["loras"]:
        encoders = [te1, te2]
        network, tensors = lora.create_network_from_weights(1.0, file, vae, encoders, unet, for_inference=True)
        network.apply_to(encoders, unet)
        left = network.load_state_dict(tensors, False)
        layers = [*network.text_encoder_loras, *network.unet_loras]
        told[file] = {"layers": len(layers), "not loaded": [*left.missing_keys, *left.unexpected_keys, *heard()]}
    return told


def diffusers() -> Told:
    import torch
    from diffusers import StableDiffusionXLPipeline, __version__, utils
    from peft.tuners.tuners_utils import BaseTunerLayer

    logging.getLogger("diffusers").addHandler(HEARD)
    utils.logging.set_verbosity_info()
    pipeline = StableDiffusionXLPipeline.from_single_file(
        JOB["base"], config=JOB["folder"], torch_dtype=torch.float16, local_files_only=True
    )
    told: Told = {"version": f"diffusers {__version__}", "seen as": type(pipeline).__name__, "base": heard()}
    for file in JOB["loras"]:
        pipeline.load_lora_weights(file)
        networks = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
        layers = [one for network in networks for one in network.modules() if isinstance(one, BaseTunerLayer)]
        told[file] = {"layers": len(layers), "not loaded": heard()}
        pipeline.unload_lora_weights()
    return told


READERS: dict[str, Callable[[], Told]] = {"comfyui": comfyui, "sd-scripts": sd_scripts, "diffusers": diffusers}
print("RESULT " + json.dumps(READERS[JOB["program"]]()), flush=True)
