"""What a dry run shows of a run's settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
