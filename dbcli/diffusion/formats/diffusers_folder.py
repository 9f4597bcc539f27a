"""Writes a diffusers folder that today's and older transformers both load.

transformers ≥ 5.6 drops `text_model.` from the text encoder's names and writes only `tokenizer.json`; versions 4
then load none of the weights without a word, and look for `vocab.json` and `merges.txt`. Both are put back. The
projection of Stable Diffusion XL's second text encoder never had the prefix: under it, versions 4 do not find it.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import torch

from dbcli.diffusion.families.family import Family, Part
from dbcli.diffusion.files.writing import save_json, save_tensors, save_text
from dbcli.diffusion.formats.text_names import name_in_files
from dbcli.diffusion.unloading import reloaded


class Model(Protocol):
    """What is written of a model: its networks, tokenizers and scheduler, as a base has them."""

    family: Family
    networks: dict[str, Any]
    tokenizers: dict[str, Any]
    scheduler_config: dict[str, Any]
    max_tokens: int
    zero_negative: bool


def write_base(folder: Path, model: Model, *, dtype: torch.dtype = torch.float16) -> None:
    """Writes a model's networks, tokenizer and scheduler under `folder`; `model_index.json` is written last."""
    for name, part in model.family.parts.items():
        file = folder / name / f"{part.stems['safetensors']}.safetensors"
        with reloaded(model.networks[name]):
            save_tensors(file, _tensors(part, model.networks[name], dtype), {})
    write_settings(folder, model)


def write_settings(folder: Path, model: Model) -> None:
    """Writes everything of a diffusers folder but the weights: what diffusers needs beside a single file."""
    for name, part in model.family.parts.items():
        save_json(folder / name / "config.json", _config(part, model.networks[name]))
    for name, tokenizer in model.tokenizers.items():
        write_tokenizer(folder / model.family.parts[name].tokenizer, tokenizer)
    scheduler = {"_class_name": "DDIMScheduler", **model.scheduler_config}
    save_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    save_json(folder / "model_index.json", _index(model))


def _tensors(part: Part, network: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    # Widened in RAM: a GPU that a model in half precision just fits has no room for another in float32.
    there = {key: value.cpu() for key, value in network.state_dict().items()}
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in there.items()}
    if part.kind != "text":
        return state
    return {name_in_files(key): value for key, value in state.items() if not key.endswith("position_ids")}


def _config(part: Part, network: Any) -> dict[str, Any]:
    text = part.kind == "text"
    config = network.config.to_dict() if text else json.loads(network.to_json_string())
    config.pop("_name_or_path", None)
    # transformers loads a text encoder as its configuration says, diffusers the other networks as float32 unless
    # asked otherwise: whatever the file holds, a plain `from_pretrained` must give networks of one type.
    # Versions 4 read `torch_dtype`, versions 5 `dtype`.
    as_float32 = {"architectures": [part.class_name], "dtype": "float32", "torch_dtype": "float32"}
    return {**config, **(as_float32 if text else {})}


def _index(model: Model) -> dict[str, Any]:
    import diffusers

    family, scheduler_config = model.family, model.scheduler_config
    index: dict[str, Any] = {
        "_class_name": family.pipeline,
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        **family.pipeline_settings(model.zero_negative),
        "scheduler": ["diffusers", scheduler_config.get("_class_name", "DDIMScheduler")],
    }
    for name, part in family.parts.items():
        index[name] = ["transformers" if part.kind == "text" else "diffusers", part.class_name]
        if part.tokenizer:
            index[part.tokenizer] = ["transformers", "CLIPTokenizer"]
    return index


def write_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Writes a CLIP tokenizer in the old files and the new one, words added by training included."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}  # the last call's settings are no part of a tokenizer
    vocabulary: dict[str, int] = backend["model"]["vocab"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in backend["model"]["merges"]]
    added = {
        entry["content"]: entry["id"] for entry in backend.get("added_tokens", []) if entry["content"] not in vocabulary
    }
    special = {
        "bos_token": str(tokenizer.bos_token),
        "eos_token": str(tokenizer.eos_token),
        "pad_token": str(tokenizer.pad_token),
        "unk_token": str(tokenizer.unk_token),
    }
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": int(tokenizer.model_max_length),
        "tokenizer_class": "CLIPTokenizer",
        **special,
    }
    save_text(folder / "tokenizer.json", json.dumps(backend, ensure_ascii=False))
    save_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    save_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
    save_json(folder / "special_tokens_map.json", special)
    save_json(folder / "tokenizer_config.json", config)
    if added:
        save_json(folder / "added_tokens.json", added)
