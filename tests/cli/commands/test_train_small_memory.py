"""Settings that save memory, through the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from tests.cli.made_projects import trained_project

Run = Callable[..., Any]
JOB = ["train", "--subject", "dog", "--steps", 2, "--set=prior.enabled=false", "--set=draw.steps=1"]
SMALLEST = [
    *("--set=train.fused_backward=true", "--set=train.gradient_clip=0", "--set=train.optimizer=adafactor"),
    *("--set=train.stochastic_rounding=true", "--set=train.precision=bf16", "--set=train.gradient_checkpointing=true"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_project(tmp_path_factory.mktemp("small"), "--method", "full", *map(str, SMALLEST))


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_everything_small_at_once_makes_a_run_that_draws(run: Run, project: Path) -> None:
    done = run("generate", "a {dog}", "--run", "1", "-n", 1, "--steps", 1, "--json")
    assert done.code == 0, done.err
    record = run("runs", "show", "1", "--json").document
    assert record["profile"]["train"]["fused_backward"] is True


def test_what_it_takes_is_foretold_with_class_images_drawn_before_the_weights_are_made_small(
    run: Run, project: Path
) -> None:
    done = run("train", "--subject", "dog", "--steps", 2, *SMALLEST, "--dry-run", "--json")
    assert done.code == 0, done.err
    small, *_ = done.document["outlook"]["recipes"]
    usual, *_ = run("train", "--subject", "dog", "--steps", 2, "--dry-run", "--json").document["outlook"]["recipes"]
    assert small["phases_bytes"]["class images"] == usual["phases_bytes"]["class images"]
    assert small["phases_bytes"]["train"] < usual["phases_bytes"]["train"]


@pytest.mark.parametrize(("kept", "offload"), [("nf4", "false"), ("int8", "true"), ("bf16", "false")])
def test_adapters_on_a_small_base_preview_and_draw(run: Run, project: Path, kept: str, offload: str) -> None:
    sets = [f"--set=lora.base={kept}", f"--set=lora.offload={offload}"]
    sets += ["--set=train.preview_every=1", "--set=train.precision=bf16"]
    done = run(*JOB, "--method", "lora", *sets, "--json")
    assert done.code == 0, done.err
    assert len(list((project / "runs" / done.document["name"]).glob("previews/*.png"))) == 2
    assert run("generate", "a {dog}", "-n", 1, "--steps", 1).code == 0


@pytest.mark.parametrize(
    "small",
    [
        ["--method", "lora", "--set=lora.base=nf4", "--set=train.precision=fp32"],
        ["--method", "lora", "--set=lora.base=int8", "--set=train.precision=fp32"],
        ["--method", "full", *SMALLEST, "--set=draw.precision=fp32"],
    ],
)
def test_a_checkpoint_is_drawn_in_the_bits_that_the_result_is_drawn_in(
    run: Run, project: Path, small: list[str]
) -> None:
    done = run(*JOB, *small, "--set=train.keep_finished=all", "--json")
    assert done.code == 0, done.err
    words = ["generate", "a {dog}", "--run", done.document["name"], "-n", 1, "--steps", 2, "--seed", 1, "--json"]
    drawn = [run(*words, "--out", "a"), run(*words, "--out", "b", "--checkpoint", 2)]
    one, other = (Image.open(done.document["images"][0]["path"]).convert("RGB") for done in drawn)
    assert ImageChops.difference(one, other).getbbox() is None


def test_what_rules_another_thing_out_is_told_at_once(run: Run, project: Path) -> None:
    sets = ["train.fused_backward=true", "train.accumulation=2", "train.stochastic_rounding=true", "lora.base=nf4"]
    done = run(*JOB, *(f"--set={one}" for one in sets))
    assert done.code == 2
    for line in (
        "train.gradient_clip: should be 0",
        "train.accumulation: should be 1",
        "train.precision: should be bf16",
    ):
        assert line in done.err
    assert "method: should be lora" in done.err


def test_a_missing_extra_is_told_before_any_work(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    before = sorted((project / "runs").iterdir())
    done = run(*JOB, "--set=train.optimizer=adamw8bit", "--json")
    assert done.code == 2
    assert "bitsandbytes; or --set train.optimizer=adafactor" in " ".join(done.err.split())
    assert sorted((project / "runs").iterdir()) == before
