"""`prior.source: teacher` from the command line: what is stored, used again, and made anew where it is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dbcli.diffusion.precision import precision_on
from tests.cli.made_projects import trained_project

Run = Callable[..., Any]
# 6 class rows over 2 images are 3 rounds, of which 2 get a draw of their own.
TEACHER = [
    *("--subject", "dog", "--steps", 6, "--set=prior.source=teacher", "--set=prior.teacher_draws=2"),
    *(
        "--set=prior.images=2",
        "--set=prior.steps=1",
        "--set=train.checkpoint_every=2",
        "--set=train.keep_checkpoints=9",
        "--set=train.keep_finished=all",
    ),
    *("--set=train.learning_rate=0.003", "--set=draw.steps=2", "--json"),
]


EMPTY = "--set=prior.empty_share=0.5"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_project(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(made, tmp_path / "p"))
    monkeypatch.chdir(copy)
    return copy


def weights(project: Path, run: str) -> dict[str, torch.Tensor]:
    files = sorted((project / "runs" / run / "weights").rglob("*.safetensors"))
    return {f"{file.name}:{name}": tensor for file in files for name, tensor in load_file(file).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def draws(project: Path) -> dict[str, bytes]:
    files = (project / "reg").glob("*/teacher-*/draw-*/predictions.safetensors")
    return {str(file.relative_to(project)): file.read_bytes() for file in files}


def test_predictions_are_stored_once_and_take_what_was_said(run: Run, project: Path) -> None:
    said = run("train", *TEACHER, "--dry-run").document["teacher_bytes"]
    assert not list((project / "reg").glob("*/teacher-*"))
    done = run("train", *TEACHER)
    assert done.code == 0, done.err
    assert "Teacher predictions: a photo" in done.err
    stored = draws(project)
    # Two draws of one class image under each of two sentences.
    assert [len(load_file(file)["predictions"]) for file in stored] == [1, 1, 1, 1]
    assert said == sum(load_file(file)["predictions"].nbytes for file in stored) == 2 * 2 * 4 * 8 * 8 * 4
    again = run("train", *TEACHER)
    assert "Teacher predictions" not in again.err
    assert draws(project) == stored
    assert same(weights(project, "0002-dog"), weights(project, "0003-dog"))
    listed = run("reg", "list", "--json").document["sets"]
    assert sum(one["size_bytes"] for one in listed) > said


def test_two_subjects_of_one_class_use_no_draw_twice(run: Run, project: Path) -> None:
    photos = project / "subjects" / "dog" / "photos"
    assert run("add-subject", "rex", "--class", "dog", "--token", "zwx", photos).code == 0
    words = [word for word in TEACHER if word not in ("--subject", "dog")]
    several = ["--subject", "dog,rex", "--steps", 8, "--set=prior.teacher_draws=9"]
    said = run("train", *words, *several, "--dry-run").document["teacher_bytes"]
    done = run("train", *words, *several)
    assert done.code == 0, done.err
    # Eight class rows, each of another draw of one of two images.
    stored = [load_file(file)["predictions"] for file in draws(project)]
    assert [len(predictions) for predictions in stored] == [1] * 8
    assert said == sum(predictions.nbytes for predictions in stored)


def test_the_teacher_is_asked_with_the_empty_prompt_too(run: Run, project: Path) -> None:
    own = [*TEACHER, EMPTY]
    said = run("train", *own, "--dry-run").document["teacher_bytes"]
    done = run("train", *own)
    assert done.code == 0, done.err
    assert "Teacher predictions: no prompt" in done.err
    stored = draws(project)
    assert len(stored) == 8
    assert said == sum(load_file(project / file)["predictions"].nbytes for file in stored) == 2 * 2 * 2 * 4 * 8 * 8 * 4
    # The same images and noise, and another answer.
    sets = {Path(file).parents[2] for file in stored}
    for one in sets:
        first = [load_file(project / file)["predictions"] for file in stored if Path(file).parents[2] == one]
        assert not torch.equal(first[0], first[2])
    assert run("train", *TEACHER).code == 0
    assert not same(weights(project, "0002-dog"), weights(project, "0003-dog"))


def test_predictions_in_another_precision_are_another_store(run: Run, project: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(project / "subjects" / "dog" / "photos", tmp_path / "class"))
    words = [*TEACHER, f"--set=prior.folder={own}", "--steps", 1]
    assert run("train", *words, "--set=prior.precision=fp32").code == 0
    whole = draws(project)
    assert run("train", *words, "--set=prior.precision=bf16").code == 0
    assert whole.items() < draws(project).items()
    halves = sorted(set(draws(project)) - set(whole))
    for one, other in zip(sorted(whole), halves, strict=True):
        first, second = (load_file(project / file)["predictions"] for file in (one, other))
        # Eight bits of each number instead of 24.
        assert 0 < float((first - second).abs().max()) < 0.05


@pytest.mark.parametrize("wanted", ["auto", "fp32", "bf16"])
def test_the_precision_that_a_run_had_is_recorded(run: Run, project: Path, wanted: str) -> None:
    done = run("train", *TEACHER, "--steps", 1, f"--set=train.precision={wanted}")
    assert done.code == 0, done.err
    assert done.document["profile"]["train"]["precision"] == wanted
    assert done.document["precision"] == precision_on(wanted, torch.device("cpu"))


@pytest.mark.parametrize("broken", ["byte", "file", "manifest"])
def test_a_damaged_draw_is_made_anew_and_the_others_are_kept(run: Run, project: Path, broken: str) -> None:
    assert run("train", *TEACHER).code == 0
    stored = draws(project)
    first = project / min(stored)
    if broken == "byte":
        first.write_bytes(first.read_bytes()[:-1] + bytes([first.read_bytes()[-1] ^ 1]))
    else:
        (first if broken == "file" else first.with_name("manifest.json")).unlink()
    kept = (project / max(stored)).stat().st_mtime_ns
    done = run("train", *TEACHER)
    assert done.code == 0, done.err
    assert draws(project) == stored
    assert (project / max(stored)).stat().st_mtime_ns == kept
    assert same(weights(project, "0002-dog"), weights(project, "0003-dog"))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_with_a_teacher_resumes_bit_for_bit(run: Run, project: Path, method: str) -> None:
    assert run("train", *TEACHER, "--method", method, "--set=train.text_encoder=true", EMPTY).code == 0
    assert bool(draws(project)) == (method == "full")
    whole, folder = weights(project, "0002-dog"), project / "runs" / "0002-dog"
    shutil.rmtree(folder / "weights")
    for step in (4, 6):
        shutil.rmtree(folder / "checkpoints" / f"step-{step:06d}")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"state": "running"}))
    done = run("train", "--resume", 2)
    assert done.code == 0, done.err
    assert same(weights(project, "0002-dog"), whole)


def test_a_run_that_goes_on_is_taught_by_the_base_and_not_by_its_parent(run: Run, project: Path) -> None:
    assert run("train", *TEACHER).code == 0
    stored = draws(project)
    done = run("train", "--from", 2, "--json")
    assert done.code == 0, done.err
    assert done.document["profile"]["prior"]["source"] == "teacher"
    assert draws(project) == stored


def test_without_the_prior_nothing_is_stored(run: Run, project: Path) -> None:
    plan = run("train", *TEACHER, "--set=prior.enabled=false", "--dry-run")
    assert "teacher_bytes" not in plan.document
    assert run("train", *TEACHER, "--set=prior.enabled=false").code == 0
    assert not draws(project)
