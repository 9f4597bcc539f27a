"""The commands on a trained flow-matching model, the embedded `tiny-flow`, from `init` to exports."""

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

from dbcli.diffusion.training.trainer import Trainer
from dbcli.project.runs.checkpoints import LORA_FILE
from tests.cli.made_projects import command
from tests.project import photo_makers

Run = Callable[..., Any]
SHORT = ("--subject", "dog", "--set=prior.images=2", "--set=prior.steps=2", "--set=probe.judge=off", "--quiet")
SECOND = "--set=train.text_encoder_2_learning_rate=1e-4"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run of three steps."""
    folder = tmp_path_factory.mktemp("flow")
    project = folder / "myproj"
    command("init", project, "--base", "tiny-flow", "--quiet")
    for number in range(2):
        photo_makers.save(folder / "in" / f"{number}.png", photo_makers.plain((40, 90 * number, 50)))
    words = ("--class", "dog", "--token", "sks", "--no-caption", "--no-mask", "--quiet")
    command("-C", project, "add-subject", "dog", folder / "in", *words)
    command("-C", project, "train", "--steps", 3, *SHORT)
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def sha_of(project: Path, run: str) -> str:
    return hashlib.sha256((project / "runs" / run / "weights" / LORA_FILE).read_bytes()).hexdigest()


def test_a_run_is_a_lora_by_its_own_profile(project: Path) -> None:
    record = json.loads((project / "runs" / "0001-dog" / "run.json").read_text(encoding="utf-8"))
    assert (record["state"], record["step"], record["method"]) == ("finished", 3, "lora")
    assert record["profile"]["draw"]["sampler"] == "euler"


@pytest.mark.parametrize("target", ["lora", "kohya"])
def test_an_export_gives_in_diffusers_what_the_run_gives(run: Run, project: Path, target: str) -> None:
    made = run("export", 1, "--to", target, "--precision", "fp32", "--json")
    assert made.code == 0, made.err
    assert made.document["difference"] == 0.0
    with safe_open(made.document["path"], "pt") as file:
        metadata = file.metadata()
    # Its layers are those of Stable Diffusion 1; what it predicts has no name in ModelSpec.
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert "modelspec.prediction_type" not in metadata


@pytest.mark.parametrize("target", ["diffusers", "checkpoint"])
def test_a_whole_model_is_no_export_of_it(run: Run, project: Path, target: str) -> None:
    refused = run("export", 1, "--to", target)
    assert refused.code == 2
    assert "--to lora or --to kohya" in refused.err


@pytest.mark.parametrize(
    ("kind", "left", "not_left"),
    [("--set=lora.dora=true", "--to lora", ["kohya", "comfyui"]), ("--set=lora.kind=loha", "--to kohya", ["lora"])],
)
def test_what_is_proposed_for_another_adapter_can_be_written(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, left: str, not_left: list[str]
) -> None:
    monkeypatch.chdir(Path(shutil.copytree(project, tmp_path / "p")))
    assert run("train", "--steps", 1, *SHORT, kind).code == 0
    for target in ("checkpoint", "embedding", *not_left):
        refused = run("export", 2, "--to", target)
        assert refused.code in (2, 6) and "--to checkpoint" not in refused.err, refused.err
        assert target == "comfyui" or left in refused.err, refused.err
    assert run("export", 2, *left.split()).code == 0


@pytest.mark.parametrize("method", ["full", "textual-inversion"])
def test_other_methods_are_refused_in_words_before_a_run_is_made(run: Run, project: Path, method: str) -> None:
    refused = run("train", "--method", method, "--steps", 3, *SHORT)
    assert refused.code == 2
    assert "tiny-flow is a flow-matching model" in refused.err and "--method lora" in refused.err
    assert not (project / "runs" / "0002-dog").exists()


@pytest.mark.parametrize("setting", ["train.multires_noise", "train.offset_noise"])
def test_other_than_plain_noise_is_refused_before_a_run_is_made(run: Run, project: Path, setting: str) -> None:
    refused = run("train", "--steps", 3, *SHORT, f"--set={setting}=0.3")
    assert refused.code == 2
    said = " ".join(refused.err.split())
    assert f"{setting} is 0.3, but tiny-flow is a flow-matching model" in said and f"--set {setting}=0" in said
    assert not (project / "runs" / "0002-dog").exists()


def test_a_rate_for_a_second_text_encoder_is_refused_where_there_is_one(run: Run, project: Path) -> None:
    refused = run("train", "--steps", 3, *SHORT, "--set=train.text_encoder=true", SECOND)
    assert refused.code == 2
    assert "train.text_encoder_2_learning_rate is 0.0001, but tiny-flow has one text encoder." in refused.err
    assert "--set train.text_encoder_2_learning_rate=null" in refused.err
    assert not list((project / "runs").glob("*/run.json"))[1:]


def test_images_are_drawn_by_its_own_sampler_and_again_to_the_bit(run: Run, project: Path) -> None:
    refused = run("generate", "a sks dog", "-n", 1, "--steps", 2, "--sampler", "ddim")
    assert refused.code == 2 and "--sampler euler" in refused.err
    first, again = (run("generate", "a sks dog", "-n", 1, "--steps", 2, "--seed", 4, "--json") for _ in range(2))
    assert first.code == again.code == 0, first.err + again.err


DDIM = ("--set=probe.judge=tiny", "--set=probe.sampler=ddim", "--set=train.preview_every=1", "--set=draw.sampler=ddim")


@pytest.mark.parametrize("words", [("--steps", 3, *SHORT), ("--resume", 1)], ids=["new", "resumed"])
def test_a_sampler_of_diffusion_is_refused_with_settings_that_can_be_typed(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[Any, ...]
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    file = copy / "runs" / "0001-dog" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"state": "interrupted"}))
    before = file.read_bytes()
    refused = run("train", *words, *DDIM)
    said = " ".join(refused.err.split())
    assert refused.code == 2
    assert 'probe.sampler, draw.sampler: the sampler "ddim" is one of diffusion' in said
    assert said.endswith("→ --set probe.sampler=euler --set draw.sampler=euler")
    assert file.read_bytes() == before and len(list((copy / "runs").glob("*/run.json"))) == 1
    if "--resume" in words:
        typed = said.rpartition("→ ")[2].split()
        assert run("train", *words, *DDIM, *typed, "--dry-run", "--quiet").code == 0


def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    step = Trainer.step

    def stopped(trainer: Trainer) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert run("train", "--steps", 3, *SHORT).code == 143
    # Runs that began before a second encoder's rate was refused where there is none go on.
    file = copy / "runs" / "0002-dog" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["profile"]["train"]["text_encoder_2_learning_rate"] = 1e-4
    file.write_text(json.dumps(record), encoding="utf-8")
    more = run("train", "--resume", 2, "--quiet")
    assert more.code == 0, more.err
    assert sha_of(copy, "0002-dog") == sha_of(project, "0001-dog")


def test_a_lora_of_it_is_one_for_tiny(run: Run, project: Path, tmp_path: Path) -> None:
    file = tmp_path / "flow.safetensors"
    assert run("export", 1, "--to", "kohya", "--out", file).code == 0
    assert run("init", tmp_path / "sd", "--base", "tiny", "--quiet").code == 0
    taken = run("-C", tmp_path / "sd", "import-lora", file, "--token", "ohwx", "--class", "dog")
    assert taken.code == 0, taken.err


def test_a_prediction_type_is_not_to_be_chosen(run: Run, tmp_path: Path) -> None:
    refused = run("init", tmp_path / "p", "--base", "tiny-flow", "--prediction-type", "epsilon")
    assert refused.code == 2 and "predicts a velocity" in refused.err


def test_a_dry_run_estimates_it(run: Run, project: Path) -> None:
    planned = run("train", *SHORT, "--steps", 3, "--dry-run", "--json")
    assert planned.code == 0, planned.err
