"""LoKr and LoHa from training to other programs: drawn with, combined, exported, imported, merged, trained further."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dbcli.workflows.sharing.export import KINDS
from tests.cli.made_projects import TRAIN, command, untrained_project

Run = Callable[..., Any]
DRAW = ["-n", 1, "--steps", 2, "--guidance", 3, "--seed", 5, "--json"]
TARGETS = "--set=lora.targets=[to_q,to_v,conv1]"
LOKR = ("--set=lora.kind=lokr", "--set=lora.factor=2", "--set=lora.rank=1", "--set=lora.alpha=2")
LOHA = ("--set=lora.kind=loha", "--set=lora.rank=2", "--set=lora.alpha=1", "--set=lora.tucker=true")
FILE = "weights/pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoKr (run 1) and a LoHa (run 2) with the text encoder, a LoRA (run 3) and a rank-stabilised one (run 4)."""
    project = untrained_project(tmp_path_factory.mktemp("lokr"))
    words = ("--subject", "dog", *TRAIN, "--method", "lora", TARGETS, "--quiet")
    command("-C", project, "train", *words, *LOKR, "--set=train.text_encoder=true")
    command("-C", project, "train", *words, *LOHA, "--set=train.text_encoder=true")
    command("-C", project, "train", *words)
    command("-C", project, "train", *words, "--set=lora.rslora=true")
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def drawn(run: Run, *words: object) -> torch.Tensor:
    done = run("generate", "a sks dog", *words, *DRAW)
    assert done.code == 0, done.err
    with Image.open(done.document["images"][0]["path"]) as image:
        return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).int()


@pytest.mark.parametrize(("number", "mark", "algorithm"), [(1, "lokr_", "lokr"), (2, "hada_", "loha")])
def test_a_run_is_exported_proved_and_comes_back_the_same(
    run: Run, project: Path, tmp_path: Path, number: int, mark: str, algorithm: str
) -> None:
    out = tmp_path / "one.safetensors"
    done = run("export", number, "--to", "kohya", "--precision", "fp32", "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.document["difference"] == 0.0 and done.document["proved_by"].startswith("dreambooth")
    names = load_file(out)
    assert any(name.startswith("lora_unet_") and f".{mark}" in name for name in names)
    assert any(name.startswith("lora_te_") and f".{mark}" in name for name in names)
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["ss_network_args"])["algo"] == algorithm
    record = run("import-lora", out, "--json").document
    assert record["profile"]["lora"]["kind"] == algorithm
    assert re.search(rf"method +lora \({KINDS[algorithm]}\)", run("runs", "show", record["name"]).out)
    assert torch.equal(drawn(run, "--run", number), drawn(run, "--run", record["name"]))
    again = tmp_path / "again.safetensors"
    run("export", record["name"], "--to", "kohya", "--precision", "fp32", "--out", again)
    assert all(torch.equal(tensor, load_file(again)[name]) for name, tensor in names.items())


def test_each_run_learnt_something_and_they_combine(run: Run, project: Path) -> None:
    base, one, two = (drawn(run, "--run", which) for which in ("base", "1", "2"))
    assert not torch.equal(base, one) and not torch.equal(base, two)
    both = ("--run", "1", "--run", "2", "--run", "3")
    assert torch.equal(drawn(run, *both, "--weights", "0,1,0"), two)
    mixed = drawn(run, *both, "--weights", "1,0.5,1")
    assert all(not torch.equal(mixed, other) for other in (base, one, two))


def test_merged_into_a_diffusers_folder_it_draws_the_same(run: Run, project: Path, tmp_path: Path) -> None:
    done = run("export", 1, "--to", "diffusers", "--precision", "fp32", "--out", tmp_path / "folder", "--json")
    assert done.code == 0, done.err
    assert done.document["difference"] < 1e-4


def test_diffusers_own_layout_is_refused_before_anything_is_loaded(run: Run, project: Path) -> None:
    done = run("export", 1, "--to", "lora")
    assert done.code == 6
    assert "is a LoKr, which diffusers' layout of a LoRA has no place for" in done.err and "--to kohya" in done.err


def test_a_lokr_is_trained_further_in_its_own_shape(run: Run, project: Path) -> None:
    before = load_file(project / "runs" / "0001-dog" / FILE)
    done = run("train", "--from", 1, *TRAIN, "--json", "--quiet")
    assert done.code == 0, done.err
    after = load_file(project / "runs" / done.document["name"] / FILE)
    assert {name: tensor.shape for name, tensor in after.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())
    refused = run("train", "--from", 1, *TRAIN, "--set=lora.kind=loha")
    assert refused.code == 2 and "lora.kind is lokr in the run 0001-dog" in refused.err


def test_a_lokr_of_another_base_is_refused_and_leaves_no_run(run: Run, project: Path, tmp_path: Path) -> None:
    tensors = {
        name: torch.cat([tensor, tensor]) if name.endswith(".lokr_w1") else tensor
        for name, tensor in load_file(project / "runs" / "0001-dog" / FILE).items()
    }
    save_file(tensors, tmp_path / "wide.safetensors")
    runs = sorted(path.name for path in (project / "runs").iterdir())
    done = run("import-lora", tmp_path / "wide.safetensors")
    assert done.code == 6 and "was made for another base" in done.err
    assert "dreambooth init NEW --base" in done.err
    assert sorted(path.name for path in (project / "runs").iterdir()) == runs


def test_an_alpha_that_leaves_no_image_is_refused(run: Run, project: Path, tmp_path: Path) -> None:
    tensors = load_file(project / "runs" / "0001-dog" / FILE)
    first = next(name for name in tensors if name.endswith(".lokr_w2_a"))
    save_file(tensors | {first.replace(".lokr_w2_a", ".alpha"): torch.tensor(1e30)}, tmp_path / "loud.safetensors")
    done = run("import-lora", tmp_path / "loud.safetensors")
    assert done.code == 6 and "has the alpha 1e+30 with rank" in " ".join(done.err.split())


def test_a_lokr_has_no_embedding_and_the_hint_names_what_it_can_be(run: Run, project: Path) -> None:
    done = run("export", 1, "--to", "embedding")
    assert done.code == 2 and "--to kohya" in done.err and "--to lora" not in done.err


def test_the_kind_is_told_of_every_run_once_it_differs(run: Run, project: Path) -> None:
    differs = {one["name"]: one["differs"] for one in run("runs", "list", "--json").document["runs"]}
    assert {"lora kind lokr"} <= set(differs["0001-dog"])
    assert all(any(word.startswith("lora kind ") for word in words) for words in differs.values())


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["--set=lora.kind=oft"], "'lora', 'lokr' or 'loha'"),
        (["--set=lora.kind=lokr", "--set=lora.dora=true"], "lora.dora: should be false with lora.kind=lokr"),
        (["--set=lora.kind=lokr", "--set=lora.factor=0"], "from 1 to 4096, or -1"),
        (
            ["--from", "3", "--set=lora.tucker=true"],
            "lora.tucker is false in the run 0003-dog, fixed by its adapter; true",
        ),
        (["--from", "4", "--set=lora.kind=lokr"], "lora.kind is lora in the run 0004-dog, fixed by its adapter; lokr"),
    ],
)
def test_settings_that_make_no_sense_are_told(run: Run, project: Path, sets: list[str], words: str) -> None:
    done = run("train", "--subject", "dog", "--method", "lora", *TRAIN, *sets)
    assert done.code == 2
    assert words in " ".join((done.out + done.err).split())


def test_a_projects_own_settings_of_adapters_do_not_stand_in_an_imports_way(
    run: Run, project: Path, tmp_path: Path
) -> None:
    settings = project / "dreambooth.yaml"
    before = settings.read_text()
    out = tmp_path / "one.safetensors"
    assert run("export", 1, "--to", "kohya", "--out", out).code == 0
    try:
        settings.write_text(before + "overrides:\n  lora: {rslora: true, b_rate_ratio: 4}\n")
        done = run("import-lora", out, "--json")
    finally:
        settings.write_text(before)
    assert done.code == 0, done.err
    kept = done.document["profile"]["lora"]
    assert (kept["kind"], kept["rslora"], kept["b_rate_ratio"]) == ("lokr", False, 1.0)


def test_a_rank_stabilised_lora_says_an_alpha_that_every_program_divides_by_the_rank(
    run: Run, project: Path, tmp_path: Path
) -> None:
    words = ("--subject", "dog", "--method", "lora", *TRAIN, "--set=lora.rank=4", "--set=lora.alpha=3")
    record = run("train", *words, "--set=lora.rslora=true", "--json", "--quiet").document
    out = tmp_path / "stable.safetensors"
    done = run("export", record["name"], "--to", "kohya", "--precision", "fp32", "--out", out, "--json")
    assert (done.code, done.document["difference"]) == (0, 0.0)
    # 6 / 4 is 3 / √4.
    assert {float(tensor) for name, tensor in load_file(out).items() if name.endswith(".alpha")} == {6.0}
    back = run("import-lora", out, "--json").document["name"]
    assert torch.equal(drawn(run, "--run", record["name"]), drawn(run, "--run", back))
    refused = run("train", *words, "--set=lora.rslora=true", "--set=lora.kind=lokr")
    assert refused.code == 2 and "lora.rslora: should be false with lora.kind=lokr" in refused.err
