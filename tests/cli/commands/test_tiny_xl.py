"""The commands on a trained model of Stable Diffusion XL's kind, the embedded `tiny-xl`, from `init` to exports."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from dbcli.diffusion.training.trainer import Trainer
from dbcli.project.runs.checkpoints import LORA_FILE
from tests.cli.made_projects import command
from tests.project import photo_makers

Run = Callable[..., Any]
SHORT = ("--subject", "dog", "--set=prior.images=2", "--set=prior.steps=2", "--set=probe.judge=off", "--quiet")
TEXT = ("--set=train.text_encoder=true", "--set=train.text_encoder_2_learning_rate=2e-4", "--set=train.batch_size=1")
RUNS = {"lora": 1, "full": 2, "textual-inversion": 3}


def begun(folder: Path) -> Path:
    project = folder / "myproj"
    command("init", project, "--base", "tiny-xl", "--quiet")
    for number in range(2):
        photo_makers.save(folder / "in" / f"{number}.png", photo_makers.plain((40, 90 * number, 50)))
    add = (
        "add-subject",
        "dog",
        "--class",
        "dog",
        "--token",
        "sks",
        folder / "in",
        "--no-caption",
        "--no-mask",
        "--quiet",
    )
    command("-C", project, *add)
    return project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of each method, both text encoders trained where there are weights of them to train."""
    project = begun(tmp_path_factory.mktemp("xl"))
    for method in RUNS:
        text = TEXT if method != "textual-inversion" else ()
        command("-C", project, "train", "--method", method, "--steps", 3, *SHORT, *text)
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def sha_of(project: Path, run: str) -> dict[str, str]:
    folder = project / "runs" / run / "weights"
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(("lora", target) for target in ("lora", "kohya", "checkpoint", "diffusers")),
        *(("full", target) for target in ("checkpoint", "diffusers")),
        *(("textual-inversion", target) for target in ("embedding", "diffusers")),
    ],
)
def test_every_export_gives_in_diffusers_what_the_run_gives(run: Run, project: Path, method: str, target: str) -> None:
    made = run("export", RUNS[method], "--to", target, "--precision", "fp32", "--json")
    assert made.code == 0, made.err
    assert made.document["difference"] == 0.0
    path = Path(made.document["path"])
    if path.is_file():
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata(), set(file.keys())
        assert metadata["modelspec.architecture"].startswith("stable-diffusion-xl-v1-base")
        if target == "kohya":
            assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
            assert {"lora_te1", "lora_te2"} <= {name.partition("_text_model_")[0] for name in names}


def test_both_text_encoders_are_trained(project: Path) -> None:
    lora = load_file(project / "runs" / "0001-dog" / "weights" / LORA_FILE)
    assert {name.partition(".")[0] for name in lora} == {"unet", "text_encoder", "text_encoder_2"}
    assert set(load_file(project / "runs" / "0003-dog" / "weights" / "dog.safetensors")) == {"clip_l", "clip_g"}


@pytest.mark.parametrize("method", list(RUNS))
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    step = Trainer.step

    def stopped(trainer: Trainer) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer)

    text = TEXT if method != "textual-inversion" else ()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert run("train", "--method", method, "--steps", 3, *SHORT, *text).code == 143
    more = run("train", "--resume", 4, "--quiet")
    assert more.code == 0, more.err
    assert json.loads((copy / "runs" / "0004-dog" / "run.json").read_text())["step"] == 3
    assert sha_of(copy, "0004-dog") == sha_of(project, f"{RUNS[method]:04d}-dog")


def test_its_exports_come_back_as_runs_and_as_a_base(run: Run, project: Path, tmp_path: Path) -> None:
    for target, words in (("kohya", "lora"), ("embedding", "textual-inversion")):
        out = tmp_path / (f"{target}.safetensors" if target == "kohya" else target)
        assert run("export", RUNS[words], "--to", target, "--out", out).code == 0
    lora = run("import-lora", tmp_path / "kohya.safetensors", "--token", "ohwx", "--class", "cat")
    assert lora.code == 0, lora.err
    (embedding,) = (tmp_path / "embedding").glob("*.safetensors")
    word = run("import-embedding", embedding, "--token", "xuv", "--class", "cat")
    assert word.code == 0, word.err
    drawn = run("generate", "a ohwx cat", "-n", 1, "--steps", 2, "--json")
    assert drawn.code == 0, drawn.err
    assert run("export", RUNS["full"], "--to", "checkpoint", "--out", tmp_path / "whole.safetensors").code == 0
    made = run("init", tmp_path / "again", "--base", tmp_path / "whole.safetensors", "--profile", "tiny")
    assert made.code == 0, made.err
    drawn = run("-C", tmp_path / "again", "generate", "a dog", "--run", "base", "-n", 1, "--steps", 2, "--json")
    assert drawn.code == 0, drawn.err


def test_a_lora_of_xl_is_refused_on_tiny_and_what_runs_keep_of_tiny_on_xl(
    run: Run, project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "xl.safetensors"
    assert run("export", RUNS["lora"], "--to", "kohya", "--out", file).code == 0
    assert run("init", tmp_path / "sd", "--base", "tiny", "--quiet").code == 0
    refused = run("-C", tmp_path / "sd", "import-lora", file, "--token", "ohwx", "--class", "cat")
    assert refused.code == 6
    assert "Stable Diffusion XL" in refused.err


def test_a_dry_run_estimates_it(run: Run, project: Path) -> None:
    planned = run("train", *SHORT, "--method", "full", "--steps", 3, *TEXT, "--dry-run", "--json")
    assert planned.code == 0, planned.err
