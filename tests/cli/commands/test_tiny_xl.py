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
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases.base import Base, load_base
from dbcli.diffusion.conditioning import embed_prompts
from dbcli.diffusion.training.trainer import Trainer
from dbcli.project.files.layout import Layout
from dbcli.project.runs.checkpoints import LORA_FILE
from dbcli.project.runs.run_store import load_run
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Silence
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


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For what adds runs to it."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    return copy


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
        is_diffusers = metadata["modelspec.implementation"] == "diffusers"
        assert is_diffusers is (target == "lora")
        if target == "kohya":
            assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
            assert {"lora_te1", "lora_te2"} <= {name.partition("_text_model_")[0] for name in names}


def test_both_text_encoders_are_trained(project: Path) -> None:
    lora = load_file(project / "runs" / "0001-dog" / "weights" / LORA_FILE)
    assert {name.partition(".")[0] for name in lora} == {"unet", "text_encoder", "text_encoder_2"}
    assert set(load_file(project / "runs" / "0003-dog" / "weights" / "dog.safetensors")) == {"clip_l", "clip_g"}


@pytest.mark.parametrize("method", list(RUNS))
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    run: Run, copied: Path, project: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.chdir(copied)
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
    assert json.loads((copied / "runs" / "0004-dog" / "run.json").read_text())["step"] == 3
    assert sha_of(copied, "0004-dog") == sha_of(project, f"{RUNS[method]:04d}-dog")


def predicted(base: Base) -> torch.Tensor:
    """What a model predicts of one noisy image for a prompt that says a subject's word, with a negative prompt."""
    noisy = torch.randn(2, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = base.denoiser(noisy, torch.tensor(400), embed_prompts(base, ["a sks dog on grass", ""]))
    return found


def predicted_by_run(project: Path, name: str) -> torch.Tensor:
    layout = Layout(project)
    return predicted(load_model(layout, load_run(layout, name), Silence(), offline=True, device="cpu"))


@pytest.mark.parametrize("target", ["lora", "kohya"])
def test_a_lora_comes_back_from_each_of_its_files_as_the_same_one(
    run: Run, copied: Path, tmp_path: Path, target: str
) -> None:
    file = tmp_path / f"{target}.safetensors"
    assert run("export", RUNS["lora"], "--to", target, "--precision", "fp32", "--out", file).code == 0
    back = run("import-lora", file, "--token", "sks", "--class", "dog", "--json")
    assert back.code == 0, back.err
    expected = load_file(copied / "runs" / "0001-dog" / "weights" / LORA_FILE)
    found = load_file(copied / "runs" / back.document["name"] / "weights" / LORA_FILE)
    assert found.keys() == expected.keys()
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) == 0.0
    ours, theirs = (predicted_by_run(copied, name) for name in ("0001-dog", back.document["name"]))
    assert float((ours - theirs).abs().max()) == 0.0
    assert float((ours - predicted(load_base("tiny-xl"))).abs().max()) > 1e-4


def test_a_whole_model_comes_back_from_one_file_as_the_same_base(run: Run, copied: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    assert run("export", RUNS["full"], "--to", "checkpoint", "--precision", "fp32", "--out", whole).code == 0
    made = run("init", tmp_path / "again", "--base", whole, "--profile", "tiny")
    assert made.code == 0, made.err
    assert float((predicted(load_base(str(whole))) - predicted_by_run(copied, "0002-dog")).abs().max()) == 0.0
    drawn = run("-C", tmp_path / "again", "generate", "a dog", "--run", "base", "-n", 1, "--steps", 2, "--json")
    assert drawn.code == 0, drawn.err


def test_an_embedding_comes_back_as_the_same_vectors_of_both_text_encoders(
    run: Run, copied: Path, tmp_path: Path
) -> None:
    out = tmp_path / "embedding"
    words = ("--to", "embedding", "--precision", "fp32", "--out", out)
    assert run("export", RUNS["textual-inversion"], *words).code == 0
    (file,) = out.glob("*.safetensors")
    back = run("import-embedding", file, "--token", "xuv", "--class", "cat", "--json")
    assert back.code == 0, back.err
    (kept,) = (copied / "runs" / back.document["name"] / "weights").glob("*.safetensors")
    expected, found = load_file(copied / "runs" / "0003-dog" / "weights" / "dog.safetensors"), load_file(kept)
    assert {name: tensor.shape for name, tensor in found.items()} == {"clip_l": (2, 128), "clip_g": (2, 256)}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    drawn = run("generate", "a xuv cat", "-n", 1, "--steps", 2, "--json")
    assert drawn.code == 0, drawn.err


def test_embeddings_inside_a_lora_are_drawn_with_where_they_are_for_both_text_encoders(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("init", tmp_path / "p", "--base", "tiny-xl", "--quiet").code == 0
    monkeypatch.chdir(tmp_path / "p")
    layer = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    vectors = {"clip_l": torch.full((2, 128), 0.5), "clip_g": torch.full((2, 256), 0.25)}
    tensors = {f"{layer}.lora_down.weight": torch.ones(1, 128), f"{layer}.lora_up.weight": torch.zeros(128, 1)}
    tensors |= {f"bundle_emb.zqv.{name}": table for name, table in vectors.items()}
    tensors |= {"bundle_emb.first.clip_l": torch.ones(1, 128), "bundle_emb.second.clip_g": torch.ones(1, 256)}
    tensors |= {"bundle_emb.old.string_to_param.*": torch.ones(1, 128)}
    save_file(tensors, tmp_path / "bundle.safetensors")
    done = run("import-lora", tmp_path / "bundle.safetensors", "--token", "sks", "--class", "dog", "--json")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "the embedding 'zqv'" in said
    for word, its in (("first", 128), ("second", 256), ("old", 128)):
        assert f"an embedding '{word}' of {its} values, not 128 and 256: left out" in said
    drawn = run("generate", "a zqv", "-n", 1, "--steps", 1, "--json")
    assert drawn.code == 0, drawn.err
    # A run of words alone cannot do without any of them.
    refused = run("import-embedding", tmp_path / "bundle.safetensors")
    assert (refused.code, "its vectors have" in refused.err) == (6, True), refused.err
    less = {name: table for name, table in tensors.items() if not name.startswith("bundle_") or ".zqv." in name}
    save_file(less, tmp_path / "less.safetensors")
    alone = run("import-embedding", tmp_path / "less.safetensors", "--json")
    assert alone.code == 0, alone.err
    (kept,) = (tmp_path / "p" / "runs" / alone.document["name"] / "weights").glob("*.safetensors")
    assert all(torch.equal(table, vectors[name]) for name, table in load_file(kept).items())


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
