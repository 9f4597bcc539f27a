"""A base that lies in a diffusers folder: `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dbcli.diffusion.assembly import COMPONENTS, Entry, Parts, quiet_libraries
from dbcli.diffusion.model_files import WeightFile, open_weights, read_json
from dbcli.errors import BaseMissing, UnsafeFile

# In order of preference: whole before half precision, safetensors before pickles.
WEIGHT_NAMES = {
    "text_encoder": (
        "model.safetensors",
        "model.fp16.safetensors",
        "pytorch_model.bin",
        "pytorch_model.fp16.bin",
    ),
    "unet": (
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.fp16.bin",
    ),
}
WEIGHT_NAMES["vae"] = WEIGHT_NAMES["unet"]

CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}

# diffusers renamed the layers of the autoencoder's attention in 2023; older repositories keep the old names.
OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def parts_of_folder(folder: Path) -> Parts:
    """Reads the configurations and headers of a diffusers folder.

    Raises BaseMissing when a part is absent, UnsafeFile when one is not what it says.
    """
    configs, entries, files = {}, {}, []
    for component in COMPONENTS:
        config = read_json(_existing(folder, f"{component}/config.json"))
        _check_class(config, component, folder)
        configs[component] = config
        weights = open_weights(_weights_path(folder, component))
        files.append(weights.path)
        entries[component] = _entries(weights)
    configs["scheduler"] = read_json(_existing(folder, "scheduler/scheduler_config.json"))
    tokenizer = _existing(folder, "tokenizer")
    small = [folder / component / "config.json" for component in COMPONENTS]
    small.append(folder / "scheduler/scheduler_config.json")
    small += sorted(path for path in tokenizer.iterdir() if path.is_file())
    return Parts(configs, entries, files, partial(read_tokenizer, tokenizer), str(folder), small_files=small)


def read_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer of a folder, without a look at the hub. Raises UnsafeFile when its files are damaged."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise BaseMissing(f"There is no tokenizer in {folder}.")
    try:
        with quiet_libraries():
            return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizer library raises bare Exceptions for a damaged file
        raise UnsafeFile(f"The tokenizer in {folder} cannot be read ({str(error)[:200]}).") from error


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise BaseMissing(
            f"{folder} is not a diffusers model: it has no {name}.",
            hint="Give the folder that holds unet/, vae/, text_encoder/, tokenizer/ and scheduler/.",
        )
    return path


def _check_class(config: dict[str, Any], component: str, folder: Path) -> None:
    found = config.get("_class_name") or (config.get("architectures") or [CLASSES[component]])[0]
    if found != CLASSES[component]:
        raise BaseMissing(
            f"{folder} has a {component} of the class {found}, not {CLASSES[component]}.",
            hint="Only Stable Diffusion 1.x and 2.x models can be a base.",
        )


def _weights_path(folder: Path, component: str) -> Path:
    for name in WEIGHT_NAMES[component]:
        if (folder / component / name).is_file():
            return folder / component / name
    raise BaseMissing(f"{folder / component} holds no weights ({WEIGHT_NAMES[component][0]}).")


def _entries(weights: WeightFile) -> dict[str, Entry]:
    return {_today_name(name): Entry(weights.shape(name), partial(weights.read, name)) for name in weights.names()}


def _today_name(name: str) -> str:
    name = name.removeprefix("text_model.")
    if ".attentions." not in name:
        return name
    head, _, last = name.rpartition(".")
    stem, _, layer = head.rpartition(".")
    return f"{stem}.{OLD_ATTENTION_NAMES[layer]}.{last}" if layer in OLD_ATTENTION_NAMES else name
