"""What a dry run shows of a run's settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import load_run
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import resolve
from dbcli.workflows.memory import estimate
from dbcli.workflows.memory.estimate import MemoryEstimate, RecipeEstimate
from dbcli.workflows.memory.ladder import rung_of
from dbcli.workflows.training.plan import Resumption, TrainingPlan

Run = Callable[..., Any]
PLANNED = ("train", "--subject", "dog", "--token", "sks", "--dry-run")


def test_a_profile_of_ones_own_is_compared_with_itself(run: Run, project: Path) -> None:
    (project / "my.yaml").write_text("train: {steps: 50}\n", encoding="utf-8")
    plain = run(*PLANNED, "--profile", "my.yaml")
    assert plain.code == 0, plain.err
    assert "Different from" not in plain.out
    changed = run(*PLANNED, "--profile", "my.yaml", "--steps", 60)
    title, table = changed.out.partition("Different from the profile my.yaml")[1:]
    assert title
    assert [line.split() for line in table.splitlines() if "." in line.split(" ")[0]] == [["train.steps", "60", "50"]]


def test_a_key_that_does_not_exist_is_told_with_all_other_faults(run: Run, project: Path) -> None:
    ended = run(*PLANNED, "--set", "lora.rank=0", "--set", "train.learnrate=3")
    assert ended.code == 2
    assert "did you mean train.learning_rate?" in ended.err
    assert "lora.rank (from --set)" in ended.err


def test_where_the_profiles_file_is_gone_the_one_it_is_compared_with_is_named(run: Run, project: Path) -> None:
    file = project / "my.yaml"
    file.write_text("train: {steps: 1}\nprior: {enabled: false}\n", encoding="utf-8")
    assert run("train", "--subject", "dog", "--token", "sks", "--profile", "my.yaml", "--quiet").code == 0
    file.unlink()
    continued = run("train", "--from", 1, "--steps", 2, "--dry-run")
    assert continued.code == 0, continued.err
    assert "profile my.yaml" in continued.out
    assert "Different from the profile full" in continued.out


def test_another_optimiser_at_the_profiles_rate_is_pointed_out_before_a_run(run: Run, project: Path) -> None:
    words = (*PLANNED, "--profile", "tiny-lora", "--set=train.optimizer=adamw")
    kept = run(*words)
    assert kept.code == 0
    assert "train.learning_rate is 0.01, which the profile tiny-lora has for schedulefree" in " ".join(kept.err.split())
    assert "which the profile" not in run(*words, "--set=train.learning_rate=1e-3").err


def test_a_rate_that_another_run_had_for_its_optimiser_is_pointed_out(run: Run, project: Path) -> None:
    words = ("--set=train.optimizer=schedulefree", "--set=train.learning_rate=0.002", "--set=prior.enabled=false")
    assert run("train", "--subject", "dog", "--token", "sks", "--steps", 1, *words, "--quiet").code == 0
    other = "--set=train.optimizer=adamw"
    continued = run("train", "--from", 1, other, "--dry-run")
    said = "train.learning_rate is 0.002, which the run 0001-dog has for schedulefree; adamw usually takes"
    assert continued.code == 0 and said in " ".join(continued.err.split())
    assert "which the run" not in run("train", "--from", 1, other, "--set=train.learning_rate=2e-4", "--dry-run").err
    record = load_run(Layout(project), "0001-dog")
    now = resolve([("", {"train.optimizer": "adamw", "train.learning_rate": 0.002})])
    resumed = Resumption(record, [], {"train.optimizer": ("schedulefree", "adamw")}, [])
    assert [one for one in TrainingPlan([], "x", now, resumed=resumed).cautions if said in one]
    changed = {**resumed.changes, "train.learning_rate": (0.02, 0.002)}
    plan = TrainingPlan([], "x", now, resumed=Resumption(record, [], changed, []))
    assert [one for one in plan.cautions if "which the run" in one] == []


def only_the_last_fits(layout: Layout, subjects: Sequence[object], recipes: Iterator[Profile]) -> MemoryEstimate:
    """An estimate of every rung below a recipe on a machine that has room for the smallest one alone."""
    *larger, last = [(str(rung and rung.name), one) for one in recipes for rung in [rung_of(one)]]
    fits = [(*one, False) for one in larger] + [(*last, True)]
    return MemoryEstimate([RecipeEstimate(name, one, 1, {}, 1.0, 1.0, is_room) for name, one, is_room in fits], 1, "")


def test_a_run_that_has_to_stay_full_is_offered_no_lora_and_no_profile_auto(
    run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_estimate", only_the_last_fits)
    offered = {"new": run("train", "--subject", "dog", "--dry-run"), "--from": run("train", "--from", 1, "--dry-run")}
    file = trained_project / "runs" / "0001-dog" / "run.json"
    record = json.loads(file.read_text()) | {"state": "interrupted"}
    file.write_text(json.dumps(record))
    offered["--resume"] = run("train", "--resume", 1, "--dry-run")
    record["profile"]["name"] = "auto"
    file.write_text(json.dumps(record))
    offered["--resume of auto"] = run("train", "--resume", 1, "--dry-run")
    assert [one.code for one in offered.values()] == [0, 0, 0, 0]
    assert all("The first that fits: " in one.out for one in offered.values())
    assert [name for name, one in offered.items() if "LoRA" in one.out] == ["new", "--resume of auto"]
    assert [name for name, one in offered.items() if "--profile auto" in one.out] == ["new"]
