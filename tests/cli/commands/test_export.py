"""Exports, written by the command and read by others' code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from tests.cli.made_projects import TRAIN, command, trained_project
from tests.diffusion import tiny_models

Run = Callable[..., Any]
RUNS = {"full": 1, "lora": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a full run and a LoRA on a base of all the blocks that checkpoints have names for."""
    folder = tmp_path_factory.mktemp("exported")
    project = trained_project(folder, "--method", "full", base=tiny_models.write_folder(folder / "base"))
    text = ["--set=train.text_encoder=true", "--set=train.text_encoder_learning_rate=0"]
    lora = ["--method", "lora", "--set=lora.alpha=8", *text, "--quiet"]
    command("-C", project, "train", "--subject", "dog", *TRAIN, *lora)
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize("target", ["diffusers", "checkpoint"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_whole_model_is_exported_and_draws_the_same(run: Run, project: Path, target: str, method: str) -> None:
    made = run("export", RUNS[method], "--to", target, "--json")
    assert made.code == 0, made.err
    assert made.document["difference"] == 0.0
    assert Path(made.document["path"]).exists()


def test_a_folder_loads_in_plain_diffusers(run: Run, project: Path) -> None:
    path = run("export", RUNS["full"], "--to", "diffusers", "--out", project / "out", "--json").document["path"]
    pipeline = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a sks dog", num_inference_steps=1, height=64, width=64, output_type="pt").images
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize("target", ["lora", "kohya"])
def test_a_lora_is_exported_with_its_true_alpha(run: Run, project: Path, target: str) -> None:
    made = run("export", RUNS["lora"], "--to", target, "--json").document
    assert made["difference"] == 0.0
    with safe_open(made["path"], "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == "sks dog"
    assert metadata["modelspec.implementation"] == "diffusers"
    if target == "kohya":
        assert metadata["ss_network_alpha"] == "8.0"
        assert (metadata["ss_unet_lr"], metadata["ss_text_encoder_lr"]) == ("0.01", "0.0")
        assert {float(value) for name, value in load_file(made["path"]).items() if name.endswith(".alpha")} == {8.0}


def test_a_full_run_has_no_lora_to_export(run: Run, project: Path) -> None:
    assert run("export", RUNS["full"], "--to", "kohya").code == 2


@pytest.mark.parametrize(("run_of", "target"), [("lora", "kohya"), ("lora", "lora"), ("full", "checkpoint")])
def test_a_file_of_another_ending_is_refused_before_anything_is_loaded(
    run: Run, project: Path, tmp_path: Path, run_of: str, target: str
) -> None:
    ended = run("export", RUNS[run_of], "--to", target, "--out", tmp_path / "one")
    assert ended.code == 2
    assert f"--out {tmp_path / 'one'}.safetensors" in ended.err
    assert not (tmp_path / "one").exists()


def test_an_export_never_overwrites(run: Run, project: Path, tmp_path: Path) -> None:
    words = ["export", RUNS["lora"], "--to", "kohya", "--out", tmp_path / "one.safetensors"]
    assert run(*words).code == 0
    assert run(*words).code == 6


def test_an_export_that_draws_another_picture_is_removed_and_exit_1(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbcli.diffusion.formats import checkpoint

    right = checkpoint.original_tensors

    def wrong(model: Any) -> dict[str, torch.Tensor]:
        return {name: tensor * 1.5 if "out.2" in name else tensor for name, tensor in right(model).items()}

    monkeypatch.setattr(checkpoint, "original_tensors", wrong)
    (tmp_path / "exports").mkdir()
    ended = run("export", RUNS["full"], "--to", "checkpoint", "--out", tmp_path / "exports" / "one.safetensors")
    assert ended.code == 1
    assert "differs by" in ended.err
    assert not list((tmp_path / "exports").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "checkpoint", "--precision", "bf16"], "--precision is one of fp16, fp32, not 'bf16'."),
        (["--to", "koyha"], "comfyui, hub, not 'koyha'."),
    ],
)
def test_the_option_that_is_wrong_is_named_with_its_value_alone(
    run: Run, project: Path, words: list[str], said: str
) -> None:
    ended = run("export", RUNS["lora"], *words)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("is one of") == 1
