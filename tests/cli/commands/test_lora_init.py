"""PiSSA, an orthogonal start and T-LoRA from training to other programs, or to the sentence that says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from tests.cli.commands.test_lokr import FILE, TARGETS, drawn
from tests.cli.made_projects import TRAIN, command, untrained_project

Run = Callable[..., Any]
FAST = ("--set=train.learning_rate=0.02", "--set=lora.rank=4", "--set=lora.alpha=8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PiSSA with the text encoder (run 1), and a T-LoRA with an orthogonal start (run 2)."""
    project = untrained_project(tmp_path_factory.mktemp("init"))
    words = ("--subject", "dog", *TRAIN, *FAST, "--method", "lora", TARGETS, "--quiet")
    command("-C", project, "train", *words, "--set=lora.init=pissa", "--set=train.text_encoder=true")
    command("-C", project, "train", *words, "--set=lora.init=orthogonal", "--set=lora.least_rank=2")
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize("target", ["kohya", "lora", "diffusers"])
def test_a_pissa_is_an_ordinary_lora_of_twice_the_rank_everywhere(
    run: Run, project: Path, tmp_path: Path, target: str
) -> None:
    out = tmp_path / ("folder" if target == "diffusers" else "one.safetensors")
    done = run("export", 1, "--to", target, "--precision", "fp32", "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.document["difference"] < 1e-4
    if target == "diffusers":
        return
    downs = [one for name, one in load_file(out).items() if name.endswith(("lora_down.weight", "lora_A.weight"))]
    assert downs and all(len(one) == 8 for one in downs)
    record = run("import-lora", out, "--json").document
    assert (record["profile"]["lora"]["init"], record["profile"]["lora"]["rank"]) == ("zero", 8)
    change = (drawn(run, "--run", 1) - drawn(run, "--run", record["name"])).abs().max()
    assert int(change) <= 1 and int((drawn(run, "--run", 1) - drawn(run, "--run", "base")).abs().max()) > 1


def test_a_pissa_is_combined_with_others_and_trained_further(run: Run, project: Path) -> None:
    assert run("generate", "a sks dog", "-n", 1, "--steps", 2, "--run", 1, "--weights", "0.5").code == 0
    done = run("train", "--from", 1, *TRAIN, "--json", "--quiet")
    assert done.code == 0, done.err
    assert (
        load_file(project / "runs" / done.document["name"] / FILE).keys()
        == load_file(project / "runs" / "0001-dog" / FILE).keys()
    )


def test_a_t_lora_generates_with_its_ranks_by_timestep(run: Run, project: Path) -> None:
    with safe_open(project / "runs" / "0002-dog" / FILE, "pt") as file:
        assert '"least": 2' in file.metadata()["dreambooth_timestep_ranks"]
    by_timestep = drawn(run, "--run", 2)
    assert int((by_timestep - drawn(run, "--run", "base")).abs().max()) > 1
    assert run("train", "--from", 2, *TRAIN, "--quiet").code == 0


@pytest.mark.parametrize(
    "target", [["--to", one] for one in ("kohya", "lora", "diffusers", "checkpoint", "comfyui", "hub")] + [[]]
)
def test_a_t_lora_is_not_written_for_other_programs(run: Run, project: Path, tmp_path: Path, target: list[str]) -> None:
    done = run("export", 2, *target, "--out", tmp_path / "out.safetensors")
    assert done.code == 6 and "is a T-LoRA" in done.err and "lora.least_rank=0" in done.err
    assert not (tmp_path / "out.safetensors").exists()


def test_a_t_lora_generates_alone(run: Run, project: Path) -> None:
    for words, hint in (
        (["--run", 1, "--run", 2], "--run 0002-dog alone\n"),
        (["--run", 2, "--weights", "0.5"], "--run 0002-dog alone, without --weights\n"),
    ):
        done = run("generate", "a sks dog", *words)
        assert done.code == 2 and "0002-dog is a T-LoRA" in done.err
        assert done.err.endswith(hint)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["--set=lora.init=pisa"], "'zero', 'pissa' or 'orthogonal'"),
        (["--set=lora.init=pissa", "--set=lora.dora=true"], "lora.dora: should be false with lora.init=pissa"),
        (["--set=lora.init=pissa", "--set=lora.kind=lokr"], "lora.init: should be zero with lora.kind=lokr"),
        (["--set=lora.init=pissa", "--set=lora.base=int8"], "lora.base: should be full with lora.init=pissa"),
        (["--set=lora.least_rank=4"], "lora.least_rank: should be below lora.rank, 4 (found 4)"),
        (
            ["--set=lora.least_rank=1", "--set=train.compile=true"],
            "train.compile: should be false with lora.least_rank",
        ),
        (["--from", "1", "--set=lora.init=zero"], "lora.init is pissa in the run 0001-dog, fixed by its adapter; zero"),
    ],
)
def test_settings_that_make_no_sense_are_told(run: Run, project: Path, sets: list[str], words: str) -> None:
    done = run("train", "--subject", "dog", "--method", "lora", *TRAIN, *sets)
    assert done.code == 2
    assert words in " ".join((done.out + done.err).split())
