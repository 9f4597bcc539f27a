"""LyCORIS: `merge` of its tools, on diffusers' networks."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any

from comparing import compared, job, run
from diffusers import StableDiffusionPipeline
from lycoris.utils import merge
from safetensors.torch import load_file

JOB = job()
PARTS = ("unet", "text_encoder", "vae")


def adapter(case: dict[str, Any]) -> dict[str, Any]:
    pipeline = StableDiffusionPipeline.from_pretrained(JOB["base_folder"], local_files_only=True)
    with redirect_stdout(sys.stderr):
        merge([pipeline.text_encoder], pipeline.unet, load_file(case["file"]), 1.0, "cpu")
    found = {
        f"{part}.{name.removeprefix('text_model.')}": tensor
        for part in PARTS
        for name, tensor in getattr(pipeline, part).state_dict().items()
    }
    return compared(found, case, "diffusers")


READ = {"lora": adapter, "kohya": adapter}
run(
    lambda case: READ[case["kind"]](case),
    f"lycoris-lora {version('lycoris-lora')}",
    [case for case in JOB["cases"] if case["kind"] in READ],
)
