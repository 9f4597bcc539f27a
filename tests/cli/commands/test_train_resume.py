"""What may be typed beside --resume: what leaves it the same run is taken and recorded, all else is refused."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbcli.cli.app import main
from tests.cli.made_projects import command, trained_project

Run = Callable[..., Any]
# Weights move by ten a step: the first steps leave nothing that predicts, and soon nothing that is finite.
TOO_FAST = ["--set=train.learning_rate=10", "--set=train.gradient_clip=0", "--set=train.checkpoint_every=1"]
BARE = ["--set=prior.enabled=false", "--set=draw.steps=2", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run, 0001-dog, and one that diverged, 0002-dog."""
    project = trained_project(tmp_path_factory.mktemp("made"))
    words = ["train", "--subject", "dog", "--method", "full", "--steps", "6", *TOO_FAST, *BARE]
    with pytest.raises(SystemExit) as ended:
        main(["-C", str(project), *words])
    assert ended.value.code == 5
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(made, tmp_path / "p"))
    monkeypatch.chdir(copy)
    return copy


def record_of(project: Path, run: str = "0002-dog") -> dict[str, Any]:
    return dict(json.loads((project / "runs" / run / "run.json").read_text()))


def rates_of(project: Path) -> list[float]:
    lines = (project / "runs" / "0002-dog" / "events.jsonl").read_text().splitlines()
    return [event["lr"] for event in map(json.loads, lines) if "lr" in event]


def typed_hint(error: str) -> list[str]:
    """The command of a hint, as a person would type it."""
    line = next(line for line in error.splitlines() if line.startswith("  → dreambooth "))
    return shlex.split(line.removeprefix("  → dreambooth "))


def test_the_hint_of_a_run_that_diverged_ends_it_when_typed(run: Run, project: Path) -> None:
    again = run("train", "--resume", 2)
    assert again.code == 5
    assert "nan" in again.err or "no longer finite" in again.err
    done = run(*typed_hint(again.err))
    assert done.code == 0, done.err
    record = record_of(project)
    assert (record["state"], record["step"]) == ("finished", 6)
    # The usual rate of full fine-tuning, which the hint names where a run's own is higher.
    assert record["profile"]["train"]["learning_rate"] == 1e-6
    assert record["changes"][0]["settings"] == {"train.learning_rate": [10.0, 1e-6]}
    assert rates_of(project)[-6:] == [1e-6] * 6


def test_a_run_that_diverged_comes_to_its_end_with_lower_rates(run: Run, project: Path) -> None:
    done = run("train", "--resume", 2, "--set=train.on_divergence=lower-rate")
    assert done.code == 0, done.err
    assert record_of(project)["state"] == "finished"
    last = rates_of(project)[-1]
    # A mantissa of one half: the rate was halved so and so often, and never otherwise.
    assert last < 10 and math.frexp(10 / last)[0] == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set=lora.rank=8"], "lora.rank is 4"),
        (["--method", "lora"], "method is full"),
        (["--seed", 7], "train.seed is 0"),
        (["--set=prior.images=3"], "prior.images is"),
        (["--set=train.text_encoder=false"], "train.text_encoder is true"),
        (["--set=images.resolution=32"], "images.resolution is none"),
        (["--set=train.accumulation=2"], "train.accumulation is 1 for the whole run"),
        (["--profile", "lora"], "--profile lora"),
        (["--token", "zwx"], "--token zwx"),
        (["--allow-collision"], "--allow-collision"),
        (["--steps", 0], "train.steps"),
    ],
)
def test_what_would_make_another_run_of_it_is_refused(run: Run, project: Path, words: list[Any], said: str) -> None:
    before = record_of(project)
    ended = run("train", "--resume", 2, *words)
    assert ended.code == 2
    assert said in ended.err
    assert "--from" in ended.err or words[0] == "--steps"
    assert record_of(project) == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("probe.sampler=dpmpp", 'probe.sampler: there is no sampler "dpmpp". Did you mean "dpm++"?'),
        ("draw.sampler=dpmpp", 'draw.sampler: there is no sampler "dpmpp". Did you mean "dpm++"?'),
        ("train.text_encoder_2_learning_rate=1e-5", "train.text_encoder_2_learning_rate is 1e-05, but"),
    ],
)
def test_what_a_new_run_is_refused_for_changes_nothing_of_one_that_is_resumed(
    run: Run, project: Path, setting: str, said: str
) -> None:
    files = {path: path.read_bytes() for path in (project / "runs").rglob("*") if path.is_file()}
    for words in ([], ["--dry-run"]):
        ended = run("train", "--resume", 2, "--set", setting, *words)
        assert (ended.code, said in " ".join(ended.err.split())) == (2, True), ended.err
    assert {path: path.read_bytes() for path in (project / "runs").rglob("*") if path.is_file()} == files


def test_the_place_of_a_schedule_free_average_is_fixed_as_long_as_its_optimiser_stays(run: Run, project: Path) -> None:
    words = ["--set=train.optimizer=schedulefree", *TOO_FAST, *BARE]
    begun = run("train", "--subject", "dog", "--method", "full", "--steps", 6, *words)
    assert begun.code == 5, begun.err
    refused = run("train", "--resume", 3, "--set=train.beta1=0.8")
    assert (refused.code, "train.beta1 is 0.9 for the whole run" in refused.err) == (2, True), refused.err
    other = ["--set=train.optimizer=adamw", "--set=train.learning_rate=1e-6", "--set=train.beta1=0.8"]
    assert run("train", "--resume", 3, *other).code == 0


def test_another_subject_is_refused(run: Run, project: Path) -> None:
    photos = project / "subjects" / "dog" / "photos"
    command("add-subject", "cat", "--class", "cat", "--token", "zwx", photos, "--quiet")
    ended = run("train", "--resume", 2, "--subject", "cat")
    assert ended.code == 2
    assert "--subject cat: it teaches dog" in ended.err


def test_the_whole_command_may_be_repeated_and_memory_settings_changed(run: Run, project: Path) -> None:
    words = ["--subject", "dog", "--token", "sks", "--method", "full", "--set=prior.enabled=false"]
    smaller = ["--set=train.optimizer=adafactor", "--set=train.gradient_checkpointing=true"]
    done = run("train", "--resume", 2, *words, *smaller, "--steps", 3, "--set=train.learning_rate=1e-6")
    assert done.code == 0, done.err
    record = record_of(project)
    assert set(record["changes"][0]["settings"]) == {
        *("train.optimizer", "train.gradient_checkpointing", "train.steps", "train.learning_rate")
    }
    assert (record["step"], record["total_steps"]) == (3, 3)
    shown = run("runs", "show", 2)
    assert "train.optimizer adafactor" in " ".join(shown.out.split())


def test_a_dry_run_of_a_resumed_run_says_what_would_change_and_trains_nothing(run: Run, project: Path) -> None:
    before = record_of(project)
    done = run("train", "--resume", 2, "--steps", 9, "--dry-run")
    assert done.code == 0, done.err
    assert "train.steps: 6 → 9" in done.err
    assert "peak memory" in done.out
    assert record_of(project) == before


def test_the_unfinished_run_of_a_subject_is_meant_by_its_name(run: Run, project: Path) -> None:
    assert "The run 0002-dog cannot be resumed like that" in run("train", "--resume", "dog", "--seed", 7).err
    assert "Did you mean 'dog'?" in run("train", "--resume", "dgo", "--dry-run").err


@pytest.mark.parametrize("words", [["--resume", "2"], ["--from", "1"]])
def test_unknown_settings_come_all_at_once_with_other_faults(run: Run, project: Path, words: list[str]) -> None:
    sets = ["--set=train.stepz=9", "--set=draw.cuont=2", "--set=train.batch_size=0"]
    done = run("train", *words, *sets)
    assert done.code == 2
    assert all(one in done.err for one in ("3 faults", "train.stepz", "draw.cuont", "train.batch_size"))


def test_a_finished_run_is_refused_with_the_way_that_goes_on(run: Run, project: Path) -> None:
    ended = run("train", "--resume", 1, "--steps", 9)
    assert ended.code == 6
    assert "dreambooth train --from 0001-dog" in ended.err


def test_a_run_of_the_days_of_one_sentence_resumes_bit_for_bit(run: Run, project: Path) -> None:
    sentence = "a photo of a {identifier} {class}"
    as_then = [f"--set=images.templates=[{json.dumps(sentence)}]", "--set=images.caption_share=1"]
    prior = ["--set=prior.template=a photo of a {class}", "--set=prior.images=2", "--set=prior.steps=1"]
    steps = ["--steps", 4, "--set=train.checkpoint_every=2", "--set=train.keep_finished=all", "--set=draw.steps=2"]
    (project / "subjects/dog/photos/0001.txt").write_text("a {dog} on a sofa")
    done = run("train", "--subject", "dog", "--method", "full", *steps, *as_then, *prior, "--json")
    assert done.code == 0, done.err
    folder = project / "runs" / done.document["name"]
    weights = folder / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    whole, record = weights.read_bytes(), record_of(project, folder.name)
    del record["profile"]["images"]["templates"], record["profile"]["images"]["caption_share"]
    record["profile"]["images"]["template"] = sentence
    (folder / "run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    shutil.rmtree(folder / "weights")
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    resumed = run("train", "--resume", folder.name)
    assert resumed.code == 0, resumed.err
    assert weights.read_bytes() == whole


def test_a_rate_is_not_carried_from_one_optimiser_to_prodigy(run: Run, project: Path) -> None:
    before = record_of(project)
    done = run("train", "--resume", 2, "--set=train.optimizer=prodigy")
    assert done.code == 2 and "train.learning_rate would stay 10, which the run 0002-dog has for adamw" in done.err
    assert "--set train.learning_rate=1" in done.err
    assert record_of(project) == before
