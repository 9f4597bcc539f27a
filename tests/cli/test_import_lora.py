"""LoRA files of other tools, brought in as runs: the same pictures come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file

from tests.cli.made_projects import command, trained_project

Run = Callable[..., Any]
DRAW = ["-n", 1, "--steps", 2, "--guidance", 3, "--seed", 5, "--json"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run, alpha 8 at rank 4, and kohya's file of it."""
    made = trained_project(tmp_path_factory.mktemp("lora"), "--method", "lora", "--set=lora.alpha=8")
    out = made / "dog.safetensors"
    command("-C", made, "export", 1, "--to", "kohya", "--precision", "fp32", "--out", out, "--quiet")
    return made


@pytest.fixture
def lora(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project / "dog.safetensors"


def drawn(run: Run, name: str) -> Image.Image:
    done = run("generate", "a sks dog", "--run", name, *DRAW)
    assert done.code == 0, done.err
    with Image.open(done.document["images"][0]["path"]) as picture:
        return picture.convert("RGB")


def test_a_kohya_file_becomes_a_run_that_draws_the_same(run: Run, lora: Path) -> None:
    done = run("import-lora", lora, "--json")
    assert done.code == 0, done.err
    record = done.document
    assert (record["state"], record["method"], record["profile"]["lora"]["alpha"]) == ("finished", "lora", 8.0)
    assert [(one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("sks", "dog")]
    assert record["base"]["hash"] and record["imported"]["file"] == lora.name
    assert ImageChops.difference(drawn(run, "1"), drawn(run, record["name"])).getbbox() is None
    again = run("export", record["name"], "--to", "kohya", "--precision", "fp32", "--json").document
    assert again["difference"] == 0.0
    one, other = load_file(lora), load_file(again["path"])
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_diffusers_file_becomes_a_run_too(run: Run, project: Path, lora: Path) -> None:
    file = project / "runs" / "0001-dog" / "weights" / "pytorch_lora_weights.safetensors"
    record = run("import-lora", file, "--name", "rex", "--token", "zwx", "--class", "puppy", "--json").document
    assert record["name"].endswith("-rex")
    assert [(one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("zwx", "puppy")]
    assert ImageChops.difference(drawn(run, "1"), drawn(run, record["name"])).getbbox() is None


def stripped(lora: Path, path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None) -> Path:
    """The same tensors without metadata, with something changed."""
    tensors = load_file(lora)
    change(tensors)
    save_file(tensors, path)
    return path


def test_a_file_that_names_no_words_is_still_drawn_with(run: Run, tmp_path: Path, lora: Path) -> None:
    done = run("import-lora", stripped(lora, tmp_path / "style.safetensors"), "--json")
    assert done.code == 0, done.err
    assert "--token and --class" in done.err
    name = done.document["name"]
    assert drawn(run, name).size == (64, 64)
    assert run("export", name, "--to", "kohya").code == 0


def wider(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("lora_down.weight"))
    tensors[name] = torch.zeros(tensors[name].shape[0], 7)


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in tensors.items() if name.endswith("up.weight")).fill_(torch.nan)


@pytest.mark.parametrize(("change", "code"), [(wider, 4), (not_finite, 6), (lambda tensors: tensors.clear(), 4)])
def test_a_file_that_cannot_be_used_leaves_no_run(
    run: Run, project: Path, tmp_path: Path, lora: Path, change: Callable[..., None], code: int
) -> None:
    before = sorted((project / "runs").iterdir())
    ended = run("import-lora", stripped(lora, tmp_path / "bad.safetensors", change))
    assert ended.code == code, ended.err
    assert sorted((project / "runs").iterdir()) == before


def test_one_word_needs_the_other(run: Run, lora: Path) -> None:
    assert run("import-lora", lora, "--token", "sks").code == 2
