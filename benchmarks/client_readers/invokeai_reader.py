"""InvokeAI: its LoRA conversion and patcher on diffusers' networks, and its reading of embeddings, from its code.

The model cache, which only lends a lock here, and the libraries of its prompt language are stood in for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from comparing import compared, greatest, job, run, tensors_of
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

JOB = job()
sys.path.insert(0, JOB["client"])
PARTS = ("unet", "text_encoder", "vae")
for name in ("compel", "compel.embeddings_provider"):
    sys.modules[name] = MagicMock()
sys.modules["compel.embeddings_provider"].BaseTextualInversionManager = object
# The packages without what they import on the way: only the files below them are wanted.
for name in ("model_manager", "model_manager.load", "model_manager.load.model_cache"):
    sys.modules[f"invokeai.backend.{name}"] = package = ModuleType(name)
    package.__path__ = [str(Path(JOB["client"], "invokeai", "backend", *name.split(".")))]
sys.modules["invokeai.backend.model_manager.load.model_cache.model_cache"] = MagicMock()

from invokeai.backend.patches.layer_patcher import LayerPatcher  # noqa: E402
from invokeai.backend.patches.lora_conversions.sd_lora_conversion_utils import (  # noqa: E402
    lora_model_from_sd_state_dict,
)
from invokeai.backend.textual_inversion import TextualInversionModelRaw  # noqa: E402
from invokeai.version import __version__  # noqa: E402

BASE = StableDiffusionPipeline.from_pretrained(JOB["base_folder"], local_files_only=True)


def adapter(case: dict[str, Any]) -> dict[str, Any]:
    patch = lora_model_from_sd_state_dict(load_file(case["file"]))
    how = {"patches": [(patch, 1.0)], "dtype": torch.float32, "force_direct_patching": True}
    unet, text = BASE.unet, BASE.text_encoder
    with (
        LayerPatcher.apply_smart_model_patches(unet, prefix="lora_unet_", **how),
        LayerPatcher.apply_smart_model_patches(text, prefix="lora_te_", **how),
    ):
        found = {
            f"{part}.{name.removeprefix('text_model.')}": tensor
            for part in PARTS
            for name, tensor in getattr(BASE, part).state_dict().items()
        }
        return compared(found, case, "diffusers")


def word(case: dict[str, Any]) -> dict[str, Any]:
    tensors, expected = load_file(case["file"]), tensors_of([case["vectors"]])
    # Its model manager takes the width of any other tensor from the first side, and so finds no base for the file.
    width = tensors["emb_params"].shape[-1] if "emb_params" in tensors else next(iter(tensors.values())).shape[0]
    if width != expected["vectors"].shape[-1]:
        raise ValueError(f"no base has prompts of width {width}")
    found = TextualInversionModelRaw.from_checkpoint(Path(case["file"])).embedding
    return greatest({"vectors": found}, expected)


READ = {"lora": adapter, "kohya": adapter, "embedding": word}
run(
    lambda case: READ[case["kind"]](case),
    f"InvokeAI {__version__}",
    [case for case in JOB["cases"] if case["kind"] in READ],
)
