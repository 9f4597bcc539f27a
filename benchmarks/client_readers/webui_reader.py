"""AUTOMATIC1111: its extension for LoRA and its reading of embeddings, from a folder of its code.

The rest of the program (the page, the settings, the original model's code) is stood in for: the extension sees a tree
of layers with the names and weights of the checkpoint, which is what it works on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from comparing import compared, greatest, job, run, tensors_of
from safetensors.torch import load_file

JOB = job()
FOLDER = Path(JOB["client"])
# Everything that the two files import of the rest of the program.
MODULES = [
    "shared",
    "devices",
    "sd_models",
    "errors",
    "scripts",
    "sd_hijack",
    "cache",
    "hashes",
    "patches",
    "images",
    "sd_samplers",
    "sd_hijack_checkpoint",
    "extra_networks",
    "ui_extra_networks",
    "textual_inversion.dataset",
    "textual_inversion.learn_schedule",
    "textual_inversion.image_embedding",
    "textual_inversion.saving_settings",
    "models",
    "models.sd3",
    "models.sd3.mmdit",
]

TREE = ModuleType("modules")
TREE.__path__ = [str(FOLDER / "modules")]
sys.modules |= {"modules": TREE, "gradio": MagicMock()}
package = ModuleType("modules.textual_inversion")
package.__path__ = [str(FOLDER / "modules" / "textual_inversion")]
sys.modules["modules.textual_inversion"] = TREE.textual_inversion = package
for name in MODULES:
    sys.modules[f"modules.{name}"] = stand_in = MagicMock()
    parent, _, last = f"modules.{name}".rpartition(".")
    setattr(sys.modules[parent], last, stand_in)
sys.modules["modules.models.sd3.mmdit"].QkvLinear = type("QkvLinear", (), {})
devices, shared = sys.modules["modules.devices"], sys.modules["modules.shared"]
devices.cpu = devices.device = torch.device("cpu")
devices.dtype = torch.float32
sys.modules["modules.sd_models"].read_state_dict = lambda path: load_file(path)
sys.path.insert(0, str(FOLDER / "extensions-builtin" / "Lora"))

import networks  # noqa: E402
from modules.textual_inversion.textual_inversion import create_embedding_from_data  # noqa: E402


def tree(tensors: dict[str, torch.Tensor], prefix: str) -> torch.nn.Module:
    """Layers with the weights of the checkpoint, nested as its names are."""
    root = torch.nn.Module()
    for name in [name for name in tensors if name.startswith(prefix) and name.endswith(".weight")]:
        weight, path = tensors[name], name.removeprefix(prefix).split(".")[:-1]
        if weight.dim() not in (2, 4) or "embedding" in path[-1]:
            continue
        outputs, inputs = weight.shape[:2]
        layer = (
            torch.nn.Linear(inputs, outputs, bias=False)
            if weight.dim() == 2
            else torch.nn.Conv2d(inputs, outputs, weight.shape[2], bias=False)
        )
        layer.weight = torch.nn.Parameter(weight.float().clone(), requires_grad=False)
        place = root
        for word in path[:-1]:
            if not hasattr(place, word):
                place.add_module(word, torch.nn.Module())
            place = getattr(place, word)
        place.add_module(path[-1], layer)
    return root


def adapter(case: dict[str, Any]) -> dict[str, Any]:
    base = tensors_of([JOB["base_checkpoint"]])
    model, text = tree(base, "model."), tree(base, "cond_stage_model.")
    shared.sd_model = SimpleNamespace(is_sdxl=False, model=model, cond_stage_model=SimpleNamespace(wrapped=text))
    networks.assign_network_names_to_compvis_modules(shared.sd_model)
    net = networks.load_network("file", SimpleNamespace(filename=case["file"], name="file"))
    net.te_multiplier = net.unet_multiplier = 1.0
    net.dyn_dim = None
    networks.loaded_networks[:] = [net]
    found = dict(base)
    for prefix, part in (("model.", model), ("cond_stage_model.", text)):
        for name, module in part.named_modules():
            if hasattr(module, "network_layer_name") and hasattr(module, "weight"):
                networks.network_apply_weights(module)
                found[f"{prefix}{name}.weight"] = module.weight
    return compared(found, case, "original")


def word(case: dict[str, Any]) -> dict[str, Any]:
    found = create_embedding_from_data(load_file(case["file"]), "word").vec
    return greatest({"vectors": found}, {"vectors": tensors_of([case["vectors"]])["vectors"]})


READ = {"lora": adapter, "kohya": adapter, "embedding": word}
changes = (FOLDER / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
run(
    lambda case: READ[case["kind"]](case),
    f"AUTOMATIC1111 {changes[0].removeprefix('## ')}",
    [case for case in JOB["cases"] if case["kind"] in READ],
)
