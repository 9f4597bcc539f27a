"""diffusers: `from_pretrained`, `from_single_file`, `load_lora_weights`, `load_textual_inversion`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from comparing import compared, greatest, job, run, tensors_of
from diffusers import StableDiffusionPipeline

JOB = job()
PARTS = ("unet", "text_encoder", "vae")
BASE = StableDiffusionPipeline.from_pretrained(JOB["base_folder"], local_files_only=True)


def fresh() -> Any:
    """The base as it was loaded; what is loaded into it stays out of the next case."""
    parts = {name: copy.deepcopy(part) for name, part in BASE.components.items()}
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


def states(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name.removeprefix('text_model.')}": tensor
        for part in PARTS
        for name, tensor in getattr(pipeline, part).state_dict().items()
    }


def whole(case: dict[str, Any]) -> dict[str, Any]:
    if Path(case["file"]).is_dir():
        pipeline = StableDiffusionPipeline.from_pretrained(case["file"], local_files_only=True)
    else:
        pipeline = StableDiffusionPipeline.from_single_file(
            case["file"], config=JOB["base_folder"], local_files_only=True
        )
    return greatest(states(pipeline), tensors_of(case["expected"]["diffusers"]))


def adapter(case: dict[str, Any]) -> dict[str, Any]:
    pipeline, path = fresh(), Path(case["file"])
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return compared(states(pipeline), case, "diffusers")


def word(case: dict[str, Any]) -> dict[str, Any]:
    pipeline, path = fresh(), Path(case["file"])
    pipeline.load_textual_inversion(str(path.parent), weight_name=path.name, token=case["token"])
    vectors = tensors_of([case["vectors"]])["vectors"]
    names = [case["token"], *(f"{case['token']}_{number}" for number in range(1, len(vectors)))]
    rows = pipeline.tokenizer.convert_tokens_to_ids(names)
    return greatest({"vectors": pipeline.text_encoder.get_input_embeddings().weight[rows]}, {"vectors": vectors})


READ = {"checkpoint": whole, "diffusers": whole, "lora": adapter, "kohya": adapter, "embedding": word}
run(
    lambda case: READ[case["kind"]](case),
    f"diffusers {diffusers.__version__}, transformers {transformers.__version__}",
    JOB["cases"],
)
