"""What init writes down of a base, that every command loads it so, and how images that are none end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases.base import load_base
from dbcli.diffusion.formats.checkpoint import original_tensors
from dbcli.project.files.layout import Layout
from dbcli.workflows.setup.open import load_project_base
from tests.cli.conftest import three_photos
from tests.diffusion import tiny_models

Run = Callable[..., Any]
SMALL = ("--width", 64, "--height", 64, "--steps", 2, "-n", 1, "--run", "base")


class Quiet:
    """A progress that says nothing."""

    def note(self, line: str) -> None: ...

    def warn(self, line: str) -> None: ...


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in original_tensors(tiny_models.model()).items()}


def loaded(project: Path) -> Any:
    return load_project_base(Layout(project), Quiet(), offline=True)  # type: ignore[arg-type]


def test_the_prediction_type_is_recorded_and_used(run: Run, tmp_path: Path, tensors) -> None:
    save_file(tensors, str(tmp_path / "m.safetensors"))
    for name, words in (("said", ("--prediction-type", "v_prediction")), ("open", ())):
        assert run("init", tmp_path / name, "--base", tmp_path / "m.safetensors", "--profile", "tiny", *words).code == 0
    settings = yaml.safe_load((tmp_path / "said" / "dreambooth.yaml").read_text())
    assert settings["prediction_type"] == "v_prediction"
    assert "prediction_type" not in yaml.safe_load((tmp_path / "open" / "dreambooth.yaml").read_text())
    bases = {name: loaded(tmp_path / name) for name in ("said", "open")}
    assert bases["said"].prediction_type == "v_prediction"
    assert bases["open"].prediction_type == "epsilon"
    assert bases["said"].hash != bases["open"].hash


def test_a_wrong_prediction_type_is_a_wrong_option(run: Run, tmp_path: Path) -> None:
    ended = run("init", tmp_path / "p", "--base", "tiny", "--profile", "tiny", "--prediction-type", "x0")
    assert ended.code == 2
    assert "epsilon, v_prediction" in ended.err
    assert not (tmp_path / "p").exists()


def test_a_vae_is_recorded_with_its_hash_and_may_not_change(run: Run, tmp_path: Path, tensors) -> None:
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}
    save_file(without, str(tmp_path / "m.safetensors"))
    other = original_tensors(tiny_models.base_of(tiny_models.networks(seed=1)))
    vae = {name: tensor.contiguous() for name, tensor in other.items() if name.startswith("first_stage_model.")}
    save_file(vae, str(tmp_path / "vae.safetensors"))
    init = ("init", tmp_path / "p", "--base", tmp_path / "m.safetensors", "--profile", "tiny")
    ended = run(*init)
    assert ended.code == 4
    assert "--vae" in ended.err
    assert run(*init, "--vae", tmp_path / "vae.safetensors").code == 0
    settings = yaml.safe_load((tmp_path / "p" / "dreambooth.yaml").read_text())
    assert settings["vae"] == str(tmp_path / "vae.safetensors")
    assert len(settings["vae_hash"]) == 64
    expected = tiny_models.networks(seed=1)["vae"].state_dict()
    base = loaded(tmp_path / "p")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in base.vae.state_dict().items())
    changed = {name: tensor + 1 for name, tensor in load_file(str(tmp_path / "vae.safetensors")).items()}
    save_file(changed, str(tmp_path / "vae.safetensors"))
    ended = run("-C", tmp_path / "p", "generate", "a dog", *SMALL)
    assert ended.code == 6
    assert "vae.safetensors" in ended.err


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda t: {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 32)}, 6, "a LoRA"),
        (lambda t: {**t, "conditioner.embedders.1.model.x": torch.zeros(1)}, 4, "only one of two text encoders"),
        (lambda t: {n: v for n, v in t.items() if not n.startswith("cond_stage_model.")}, 4, "no text encoder"),
        (lambda t: {n: v for n, v in t.items() if "middle_block.1" not in n}, 4, "lacks"),
    ],
)
def test_init_judges_a_file_before_anything_is_made(
    run: Run, tmp_path: Path, tensors, change: Callable[..., Any], code: int, words: str
) -> None:
    save_file(change(tensors), str(tmp_path / "m.safetensors"))
    ended = run("init", tmp_path / "p", "--base", tmp_path / "m.safetensors", "--profile", "tiny")
    assert ended.code == code
    assert words in ended.err
    assert not (tmp_path / "p").exists()


def test_a_base_that_half_precision_cannot_hold_is_drawn_in_fp32_with_a_note(run: Run, tmp_path: Path, tensors) -> None:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    save_file(tensors | {first: tensors[first] * 1e6}, str(tmp_path / "m.safetensors"))
    run("init", tmp_path / "p", "--base", tmp_path / "m.safetensors", "--profile", "tiny")
    ended = run("-C", tmp_path / "p", "--json", "generate", "a dog", *SMALL, "--precision", "fp16")
    assert ended.code == 0
    assert "once more in fp32" in ended.err
    with Image.open(ended.document["images"][0]["path"]) as image:
        low, high = image.convert("L").getextrema()
    assert high > low


def test_an_infinite_weight_ends_drawing_with_exit_5(run: Run, tmp_path: Path, tensors) -> None:
    last = "model.diffusion_model.out.2.bias"
    save_file(tensors | {last: torch.full((4,), float("inf"))}, str(tmp_path / "m.safetensors"))
    run("init", tmp_path / "p", "--base", tmp_path / "m.safetensors", "--profile", "tiny")
    ended = run("-C", tmp_path / "p", "generate", "a dog", *SMALL)
    assert ended.code == 5
    assert "unet.conv_out.bias" in ended.err
    assert not list((tmp_path / "p").rglob("*.png"))


def test_exports_carry_prediction_zero_snr_and_vae(tmp_path: Path, tensors) -> None:
    from dbcli.diffusion.files.model_files import open_weights
    from dbcli.diffusion.formats.checkpoint import write_checkpoint
    from dbcli.diffusion.formats.diffusers_folder import write_base

    save_file(tensors | {"ztsnr": torch.tensor([])}, str(tmp_path / "m.safetensors"))
    tiny_models.networks(seed=1)["vae"].save_pretrained(tmp_path / "vae")
    base = load_base(str(tmp_path / "m.safetensors"), vae=str(tmp_path / "vae"))
    write_base(tmp_path / "folder", base, dtype=torch.float32)
    write_checkpoint(tmp_path / "out.safetensors", base, dtype=torch.float32)
    assert {"v_pred", "ztsnr"} <= set(open_weights(tmp_path / "out.safetensors").names())
    assert {load_base(str(tmp_path / name)).hash for name in ("folder", "out.safetensors")} == {base.hash}


def test_layers_are_looked_up_in_the_base_as_it_was_chosen(run: Run, tmp_path: Path, base_folder: Path) -> None:
    """A scheduler that ends without signal and says epsilon can be no base, unless a person says otherwise."""
    folder = tmp_path / "zero"
    shutil.copytree(base_folder, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rescale_betas_zero_snr": True}))
    project, photos = tmp_path / "p", three_photos(tmp_path / "photos")
    assert run("init", project, "--base", folder, "--prediction-type", "v_prediction").code == 0
    assert run("-C", project, "add-subject", "dog", "--class", "dog", "--token", "sks", photos).code == 0
    words = ("-C", project, "train", "--subject", "dog", "--method", "lora", "--dry-run", "--set")
    found = run(*words, "lora.targets=[to_q]")
    assert found.code == 0, found.err
    assert "to_x is no layer" in run(*words, "lora.targets=[to_x]").err
