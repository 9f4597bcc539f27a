"""stable-diffusion.cpp, by its Python binding: images alone can be compared, those of a file with those of its merge.

The binding shows no weights, so that a LoRA's image is held against that of a checkpoint which has the LoRA merged, and
a checkpoint in half precision against the one in full precision.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comparing import job, run
from PIL import ImageChops
from stable_diffusion_cpp import StableDiffusion

JOB = job()
PROMPT = "a photo of a dog"


@cache
def image(checkpoint: str, lora: Path | None = None) -> Any:
    program = StableDiffusion(
        model_path=checkpoint,
        lora_model_dir=str(lora.parent) if lora else "",
        wtype="f32",
        n_threads=JOB["threads"],
        verbose=True,
    )
    prompt = f"{PROMPT}<lora:{lora.stem}:1>" if lora else PROMPT
    made = program.generate_image(prompt=prompt, width=64, height=64, sample_steps=2, cfg_scale=1.0, seed=1)
    return made[0].convert("RGB")


def levels(one: Any, other: Any) -> int:
    return max(most for _, most in ImageChops.difference(one, other).getextrema())


def compared(case: dict[str, Any]) -> dict[str, Any]:
    if not re.fullmatch(r"[\w.-]+", Path(case["file"]).name):
        raise ValueError("the name of the file cannot stand in a prompt")
    plain = image(JOB["base_checkpoint"])
    if case["kind"] == "checkpoint":
        found, expected = image(case["file"]), plain
    else:
        found, expected = image(JOB["base_checkpoint"], Path(case["file"])), image(case["merged"])
    return {
        "levels": levels(found, expected),
        "change": levels(found, plain),
        "missing": [],
        "differing": [],
    }


run(
    compared,
    f"stable-diffusion-cpp-python {version('stable-diffusion-cpp-python')}",
    [case for case in JOB["cases"] if case["kind"] == "checkpoint" or "merged" in case],
)
