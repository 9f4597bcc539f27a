"""Exit codes, messages, and what a command does without a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_outside_a_project_a_command_says_how_to_make_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("runs", "list")
    assert ended.code == 2
    assert "dreambooth init my-project" in ended.err


def test_a_missing_subject_names_its_option(run: Run, project: Path) -> None:
    ended = run("train")
    assert ended.code == 2
    assert "--subject" in ended.err


def test_a_missing_token_names_its_option(run: Run, project: Path) -> None:
    ended = run("train", "--subject", "dog")
    assert ended.code == 2
    assert "--token" in ended.err


def test_an_unknown_subject_is_a_persons_data(run: Run, project: Path) -> None:
    ended = run("train", "--subject", "cat", "--token", "sks")
    assert ended.code == 3
    assert "dog" in ended.err


def test_every_fault_of_the_settings_is_shown_at_once(run: Run, project: Path) -> None:
    words = ["--set", "train.steps=-1", "--set", "train.learning_rate=fast"]
    ended = run("train", "--subject", "dog", "--token", "sks", *words)
    assert ended.code == 2
    assert "train.steps" in ended.err
    assert "train.learning_rate" in ended.err


def test_a_method_that_does_not_exist_names_those_that_do(run: Run, project: Path) -> None:
    ended = run("train", "--subject", "dog", "--token", "sks", "--method", "loar")
    assert ended.code == 2
    assert "'full', 'lora' or 'textual-inversion'" in ended.err


def test_a_run_that_is_not_there_is_missing(run: Run, project: Path) -> None:
    assert run("generate", "a dog", "--run", "7").code == 4
    assert run("generate", "a dog").code == 4


def test_another_subjects_word_is_refused(run: Run, project: Path, photos: Path) -> None:
    assert run("add-subject", "cat", "--class", "cat", photos, "--token", "sks").code == 0
    assert run("train", "--subject", "dog", "--token", "sks").code == 6


def test_a_base_that_is_nothing_is_refused_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    ended = run("init", tmp_path / "p", "--base", "no-such-base")
    assert ended.code == 2
    assert not (tmp_path / "p").exists()


def test_a_hub_that_may_not_be_used_is_exit_4_with_ways_out(run: Run, tmp_path: Path) -> None:
    ended = run("--offline", "init", tmp_path / "p", "--base", "somebody/some-model")
    assert ended.code == 4
    assert "--base tiny" in ended.err


def test_judges_that_are_not_there_are_exit_4_before_anything_is_drawn(run: Run, project: Path) -> None:
    words = ["--set=prior.enabled=false", "--set=draw.steps=1"]
    assert run("train", "--subject", "dog", "--token", "sks", "--steps", 1, *words).code == 0
    ended = run("eval", "--judge", "paper", "--offline")
    assert ended.code == 4
    assert "tiny" in ended.err
    assert not (project / "runs" / "0001-dog" / "eval").exists()


def test_an_error_is_one_json_document_too(run: Run, project: Path) -> None:
    ended = run("runs", "show", "9", "--json")
    assert ended.document["error"]["exit_code"] == 4


def test_a_persons_words_are_never_markup_or_escape_sequences(run: Run, project: Path) -> None:
    ended = run("runs", "show", "[/red][bold]\x1b[31m")
    assert ended.code == 4
    assert "\x1b" not in ended.err
    assert "[/red]" in ended.err


def test_a_fault_of_the_program_keeps_its_traceback_in_a_log(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbcli.workflows.runs.manage

    def broken(layout: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(dbcli.workflows.runs.manage, "all_runs", broken)
    ended = run("runs", "list")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    log = Path(ended.err.split("the details are in ")[1].strip())
    assert "planted" in log.read_text()


def test_the_program_runs_as_a_command_without_a_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dbcli.cli.app", "init"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 2
    assert "DIR" in done.stderr
