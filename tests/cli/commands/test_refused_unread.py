"""What is no base or no adapter for one is refused by name, with its exit code, and no weight of a base is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora
from dbcli.diffusion.files.model_files import SafetensorsFile
from dbcli.diffusion.formats.checkpoint import original_tensors, write_checkpoint
from dbcli.diffusion.formats.diffusers_folder import write_base
from dbcli.diffusion.formats.lora import attached_lora
from dbcli.diffusion.formats.lora_writing import for_kohya, write_kohya_lora
from tests.cli.conftest import Run
from tests.diffusion import tiny_models

UNET = "model.diffusion_model."
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def xl() -> Tensors:
    """A narrow model of XL in the original layout."""
    return {name: tensor.contiguous() for name, tensor in original_tensors(tiny_models.model("sdxl")).items()}


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file of which a tensor is read from here on."""
    read, seen = SafetensorsFile.read, []

    def watched(self: SafetensorsFile, name: str) -> torch.Tensor:
        seen.append(self.path)
        return read(self, name)

    monkeypatch.setattr(SafetensorsFile, "read", watched)
    return seen


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            lambda t: {**without(t, "conditioner."), "conditioner.embedders.0.model.ln_final.bias": t[NORM]},
            6,
            "refiner",
        ),
        (lambda t: {**t, f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, 6, "an inpainting model"),
        (lambda t: {f"{UNET}double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, 6, "a Flux model"),
        (lambda t: without(t, "conditioner.embedders.1."), 4, "only one of two text encoders"),
    ],
)
def test_another_model_in_one_file(
    change: Callable[[Tensors], Tensors],
    code: int,
    words: str,
    xl: Tensors,
    run: Run,
    tmp_path: Path,
    unread: list[Path],
) -> None:
    save_file(change(xl), tmp_path / "model.safetensors")
    refused = run("init", tmp_path / "project", "--base", tmp_path / "model.safetensors")
    assert (refused.code, unread) == (code, [])
    assert words in refused.err and not (tmp_path / "project").exists()


NORM = "conditioner.embedders.1.model.ln_final.bias"


def without(tensors: Tensors, start: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}


@pytest.mark.parametrize(
    ("unet", "words"),
    [({"cross_attention_dim": 1280}, "refiner"), ({"in_channels": 9}, "an inpainting model")],
)
def test_another_model_in_a_folder(
    unet: dict[str, int], words: str, run: Run, tmp_path: Path, unread: list[Path]
) -> None:
    folder = tmp_path / "model"
    write_base(folder, tiny_models.model("sdxl"))
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | unet))
    refused = run("init", tmp_path / "project", "--base", folder)
    assert (refused.code, unread) == (6, [])
    assert words in refused.err and "Stable Diffusion" in refused.err


@pytest.mark.parametrize(("left", "code"), [("half", 6), ("none", 4)])
def test_a_shard_that_was_not_downloaded_to_the_end(
    left: str, code: int, run: Run, tmp_path: Path, unread: list[Path]
) -> None:
    folder, stem = tmp_path / "model", "diffusion_pytorch_model"
    write_base(folder, tiny_models.model("sdxl"))
    whole = folder / "unet" / f"{stem}.safetensors"
    tensors = load_file(whole)
    names = [f"{stem}-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {name: names[number % 2] for number, name in enumerate(tensors)}
    for file in names:
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        save_file(part, folder / "unet" / file)
    index = folder / "unet" / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    whole.unlink()
    last = folder / "unet" / names[1]
    if left == "half":
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    else:
        last.unlink()
    refused = run("init", tmp_path / "project", "--base", folder)
    assert (refused.code, unread) == (code, [])
    assert names[1] in refused.err and "again" in refused.err


@pytest.mark.parametrize(("own", "other"), [("sdxl", "sd-v1"), ("sd-v1", "sdxl")])
def test_a_lora_for_another_family(own: str, other: str, run: Run, tmp_path: Path, unread: list[Path]) -> None:
    write_checkpoint(tmp_path / "base.safetensors", tiny_models.model(own))
    assert run("init", tmp_path / "project", "--base", tmp_path / "base.safetensors").code == 0
    made = tiny_models.base_of(
        {
            name: part.build(tiny_models.narrow_configs(other)[name])
            for name, part in tiny_models.family_of(other).parts.items()
        },
        other,
    )
    add_lora(made.tunable, LoraOptions(2, 4.0, ["to_q"], ["q_proj"], train_text=True))
    write_kohya_lora(tmp_path / "lora.safetensors", for_kohya(attached_lora(made.tunable)), made.family)
    refused = run(
        "-C", tmp_path / "project", "import-lora", tmp_path / "lora.safetensors", "--token", "sks", "--class", "dog"
    )
    assert refused.code == 6 and tmp_path / "base.safetensors" not in unread
    assert "dreambooth init NEW --base " in refused.err
