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

Run = Callable[..., Any]
FAST = ["--steps", 2, "--set=prior.enabled=false", "--set=train.learning_rate=0.01", "--set=draw.steps=2"]


def trained(run: Run, *words: str) -> None:
    assert run("train", "--subject", "dog", "--token", "sks", *FAST, *words).code == 0


@pytest.mark.parametrize("target", ["diffusers", "checkpoint"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_whole_model_is_exported_and_draws_the_same(run: Run, project: Path, target: str, method: str) -> None:
    trained(run, "--method", method)
    made = run("export", "1", "--to", target, "--json")
    assert made.code == 0, made.err
    assert made.document["difference"] == 0.0
    assert Path(made.document["path"]).exists()


def test_a_folder_loads_in_plain_diffusers(run: Run, project: Path) -> None:
    trained(run)
    path = run("export", "1", "--to", "diffusers", "--out", project / "out", "--json").document["path"]
    pipeline = StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a sks dog", num_inference_steps=1, height=64, width=64, output_type="pt").images
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize("target", ["lora", "kohya"])
def test_a_lora_is_exported_with_its_true_alpha(run: Run, project: Path, target: str) -> None:
    trained(run, "--method", "lora", "--set=lora.alpha=8")
    made = run("export", "1", "--to", target, "--json").document
    assert made["difference"] == 0.0
    with safe_open(made["path"], "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == "sks dog"
    if target == "kohya":
        assert metadata["ss_network_alpha"] == "8.0"
        assert {float(value) for name, value in load_file(made["path"]).items() if name.endswith(".alpha")} == {8.0}


def test_a_full_run_has_no_lora_to_export(run: Run, project: Path) -> None:
    trained(run)
    assert run("export", "1", "--to", "kohya").code == 2


def test_an_export_never_overwrites(run: Run, project: Path) -> None:
    trained(run)
    assert run("export", "1", "--to", "checkpoint").code == 0
    assert run("export", "1", "--to", "checkpoint").code == 6


def test_an_export_that_draws_another_picture_is_removed_and_exit_1(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbcli.diffusion.formats import checkpoint

    trained(run)
    right = checkpoint.original_tensors

    def wrong(**networks: Any) -> dict[str, torch.Tensor]:
        return {name: tensor * 1.5 if "out.2" in name else tensor for name, tensor in right(**networks).items()}

    monkeypatch.setattr(checkpoint, "original_tensors", wrong)
    ended = run("export", "1", "--to", "checkpoint")
    assert ended.code == 1
    assert "differs by" in ended.err
    assert not list((project / "exports").iterdir())
