"""The commands on a small random Z-Image, from `init` to exports."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dbcli.diffusion.training.trainer import Trainer
from dbcli.project.runs.checkpoints import LORA_FILE
from tests.cli.made_projects import command
from tests.diffusion import tiny_z_image
from tests.project import photo_makers

Run = Callable[..., Any]
SMALL = ("--set=train.precision=fp32", "--set=lora.base=full", "--set=prior.images=2", "--set=prior.steps=2")
SHORT = ("--subject", "dog", "--steps", 3, *SMALL, "--set=probe.judge=off", "--quiet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run of three steps."""
    folder = tmp_path_factory.mktemp("z")
    project = folder / "myproj"
    command("init", project, "--base", tiny_z_image.write_folder(folder / "model"), "--quiet")
    # Two shapes, which the profile trains in two sizes.
    for number, size in enumerate([(80, 96), (96, 64)]):
        photo_makers.save(folder / "in" / f"{number}.png", photo_makers.plain((40, 90 * number, 50), size))
    words = ("--class", "dog", "--token", "sks", "--no-caption", "--no-mask", "--quiet")
    command("-C", project, "add-subject", "dog", folder / "in", *words)
    command("-C", project, "train", *SHORT)
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize("target", ["lora", "kohya"])
def test_an_export_gives_in_diffusers_what_the_run_gives(run: Run, project: Path, target: str) -> None:
    made = run("export", 1, "--to", target, "--precision", "fp32", "--json")
    assert made.code == 0, made.err
    assert made.document["difference"] == 0.0
    again = run("import-lora", made.document["path"], "--token", "ohwx", "--class", "dog", "--json")
    assert again.code == 0, again.err


def test_a_lora_with_attention_as_it_was_published_is_imported_and_drawn_with(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(shutil.copytree(project, tmp_path / "p")))
    layer = "lora_unet_layers_0_attention_qkv"
    halves = {f"{layer}.lora_down.weight": torch.ones(2, 48), f"{layer}.lora_up.weight": torch.ones(3 * 48, 2)}
    save_file(halves, tmp_path / "l.safetensors")
    taken = run("import-lora", tmp_path / "l.safetensors", "--token", "ohwx", "--class", "dog", "--json")
    assert taken.code == 0, taken.err
    drawn = run("generate", "a ohwx dog", "--run", taken.document["name"], "-n", 1, "--steps", 1)
    assert drawn.code == 0, drawn.err


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("nothing is to be loaded, and nobody asked")


@pytest.mark.parametrize("target", ["diffusers", "checkpoint"])
def test_a_whole_model_is_refused_before_anything_is_loaded(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr("dbcli.workflows.sharing.export_proof.load_model", forbidden)
    refused = run("export", 1, "--to", target)
    assert refused.code == 2
    assert f"a run is a LoRA and nothing else; {target} is no format of one" in " ".join(refused.err.split())
    assert "--to lora or --to kohya" in refused.err


def test_a_lokr_is_for_comfyui_alone_and_has_no_form_on_the_hub(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(shutil.copytree(project, tmp_path / "p")))
    short = (*SHORT, "--set=lora.kind=lokr", "--set=lora.targets=[to_q]")
    name = run("train", *short, "--json").document["name"]
    made = run("export", name, "--to", "kohya", "--json")
    assert (made.code, made.document and made.document["for"]) == (0, "ComfyUI"), made.err
    monkeypatch.setattr("dbcli.diffusion.hub_upload.make_api", forbidden)
    monkeypatch.setattr("dbcli.workflows.sharing.export_proof.load_model", forbidden)
    refused = run("export", name, "--to", "hub", "--repo", "my-dog", "--yes")
    assert refused.code == 6, refused.err
    said = " ".join(refused.err.split())
    assert "is a LoKr, which the hub's readers do not load" in said and f"export {name} --to kohya" in said


@pytest.mark.parametrize("method", ["full", "textual-inversion"])
def test_other_methods_are_refused_in_words(run: Run, project: Path, method: str) -> None:
    refused = run("train", "--method", method, *SHORT)
    assert refused.code == 2
    assert "is a flow-matching model" in refused.err and "--profile zimage-lora" in refused.err


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("train.text_encoder=true", 2, "train.text_encoder: the text encoder of"),
        ("prior.sampler=ddim", 2, 'prior.sampler: the sampler "ddim" is one of diffusion'),
        ("prior.folder=nowhere", 3, "nowhere."),
    ],
)
def test_what_a_base_of_its_kind_cannot_do_is_refused_before_a_run_is_made(
    run: Run, project: Path, setting: str, code: int, said: str, dry: bool
) -> None:
    before = sorted((project / "runs").iterdir())
    refused = run("train", *SHORT, "--set", setting, *(["--dry-run"] if dry else []))
    assert (refused.code, said in refused.err) == (code, True), refused.err
    assert sorted((project / "runs").iterdir()) == before


def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "p"))
    monkeypatch.chdir(copy)
    number, step = len(list((copy / "runs").glob("0*"))) + 1, Trainer.step

    def stopped(trainer: Trainer) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert run("train", *SHORT).code == 143
    more = run("train", "--resume", number, "--quiet")
    assert more.code == 0, more.err
    (again,) = (copy / "runs").glob(f"{number:04d}-*/weights/{LORA_FILE}")
    first = project / "runs" / "0001-dog" / "weights" / LORA_FILE
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(first.read_bytes()).hexdigest()


def test_a_dry_run_estimates_it(run: Run, project: Path) -> None:
    planned = run("train", *SHORT, "--dry-run", "--json")
    assert planned.code == 0, planned.err


def test_words_are_proposed_and_checked_in_the_vocabulary_of_its_language_model(run: Run, project: Path) -> None:
    suggested = run("tokens", "suggest", "--class", "dog", "-n", 2, "--json")
    assert suggested.code == 0, suggested.err
    assert all(len(one["tokens"]) == 1 for one in suggested.document["words"])
    checked = run("tokens", "check", "vqw", "--class", "dog", "--json")
    assert checked.code == 0, checked.err
    assert len(checked.document["proposal"]["tokens"]) == 1
