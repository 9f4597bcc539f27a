"""ComfyUI: its checkpoint loader, `load_lora_for_models` and its reading of embeddings, from a folder of its code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from comparing import compared, greatest, job, run, tensors_of

JOB = job()
sys.path.insert(0, JOB["client"])
sys.argv = [sys.argv[0], "--cpu", "--fp32-unet", "--fp32-vae", "--fp32-text-enc"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.utils  # noqa: E402
import comfyui_version  # noqa: E402

TEXT = "cond_stage_model.transformer."


def states(model: Any, clip: Any, vae: Any) -> dict[str, Any]:
    """Names of the original layout; the model's are `diffusion_model.…`, the text encoder's `clip_l.transformer.…`."""
    found = {f"model.{name}": tensor for name, tensor in model.model.state_dict().items()}
    text = clip.patcher.model.state_dict()
    found |= {TEXT + name.partition("transformer.")[2]: tensor for name, tensor in text.items()}
    return found | {f"first_stage_model.{name}": tensor for name, tensor in vae.first_stage_model.state_dict().items()}


def whole(case: dict[str, Any]) -> dict[str, Any]:
    loaded = comfy.sd.load_checkpoint_guess_config(case["file"])[:3]
    return greatest(states(*loaded), tensors_of(case["expected"]["original"]))


def adapter(case: dict[str, Any]) -> dict[str, Any]:
    model, clip, vae = comfy.sd.load_checkpoint_guess_config(JOB["base_checkpoint"])[:3]
    file = comfy.utils.load_torch_file(case["file"], safe_load=True)
    model, clip = comfy.sd.load_lora_for_models(model, clip, file, 1.0, 1.0)
    comfy.model_management.load_models_gpu([model, clip.patcher], force_patch_weights=True, force_full_load=True)
    return compared(states(model, clip, vae), case, "original")


def word(case: dict[str, Any]) -> dict[str, Any]:
    path = Path(case["file"])
    vectors = tensors_of([case["vectors"]])["vectors"]
    found = comfy.sd1_clip.load_embed(path.stem, str(path.parent), vectors.shape[1], "clip_l")
    return greatest({"vectors": found}, {"vectors": vectors})


READ = {"checkpoint": whole, "lora": adapter, "kohya": adapter, "embedding": word}
run(
    lambda case: READ[case["kind"]](case),
    f"ComfyUI {comfyui_version.__version__}",
    [case for case in JOB["cases"] if case["kind"] in READ],
)
