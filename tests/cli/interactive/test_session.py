"""`generate --interactive` driven by a script."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def talked(run: Run, monkeypatch: pytest.MonkeyPatch, *lines: str, words: tuple[object, ...] = ("--json",)) -> Any:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return run("generate", "--interactive", *words)


def test_a_script_draws_many_prompts_with_one_loading(
    run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = talked(run, monkeypatch, "a {dog}", ":seed 7", ":again", ":again", ":n 1", "a {dog} in space", ":quit", "no")
    assert done.code == 0, done.err
    drawings = done.document["drawings"]
    assert [[one["seed"] for one in drawing["images"]] for drawing in drawings] == [[0, 1], [7, 8], [9, 10], [9]]
    assert drawings[3]["images"][0]["prompt"] == "a sks dog in space"
    assert all(Path(one["path"]).is_file() for drawing in drawings for one in drawing["images"])


def test_again_after_a_change_keeps_the_seeds_so_that_the_change_can_be_seen(
    run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = talked(run, monkeypatch, "a {dog}", ":steps 3", ":again")
    seeds = [[(one["seed"], one["steps"]) for one in drawing["images"]] for drawing in done.document["drawings"]]
    assert seeds == [[(0, 2), (1, 2)], [(0, 3), (1, 3)]]


def test_pictures_are_those_that_a_single_command_draws(
    run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run("generate", "a {dog}", "--seed", 3, "--json").document["images"]
    talk = talked(run, monkeypatch, ":seed 3", "a {dog}", words=("--json", "--out", "apart")).document
    pairs = zip(alone, talk["drawings"][0]["images"], strict=True)
    assert all(Path(one["path"]).read_bytes() == Path(other["path"]).read_bytes() for one, other in pairs)


def test_a_fault_ends_a_script_with_its_exit_code(
    run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert talked(run, monkeypatch, ":steps 0").code == 2
    assert talked(run, monkeypatch, "a {cat}").code == 3
    assert run("generate", "a dog", "--interactive").code == 2


def test_the_document_is_one(run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(talked(run, monkeypatch).out) == {"run": "0001-dog", "drawings": []}
