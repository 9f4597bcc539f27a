"""The tutorial, typed command by command on a small random base, so that every step of it works as it is written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
TUTORIAL = Path(__file__).resolve().parent.parent.parent / "docs" / "tutorial.md"
# What makes a command cheap; nothing else of it is changed.
CHEAP = {
    "train": ["--steps=1", "--set=prior.images=1", "--set=prior.steps=1", "--set=draw.steps=1", "--set=draw.count=1"],
    "generate": ["--steps=1", "--count=1"],
    "eval": ["--judge=tiny", "--count=1"],
    "doctor": ["--offline"],
}
# What ends otherwise than with 0 in the tutorial, and why.
EXPECTED = {"train --resume": 4}  # nothing was interrupted
# These measure a base for a minute, or need a person; each has tests of its own.
ELSEWHERE = ("tokens suggest", "generate --interactive")


def tutorial_commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_tutorial_works_as_it_is_written(
    run: Run, tmp_path: Path, base_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"sd-v1-4": str(base_folder), "~/photos/my-dog": str(photos)}
    for line in tutorial_commands():
        words = [places.get(word, word) for word in shlex.split(line)]
        if words[0] == "cd":
            monkeypatch.chdir(tmp_path / words[1])
            continue
        command = " ".join(words[1:])
        if command.startswith(ELSEWHERE):
            continue
        cheap = [] if "--resume" in words else CHEAP.get(words[1], [])
        ended = run(*words[1:], *cheap)
        assert ended.code == EXPECTED.get(command, 0), f"{line}\n{ended.err}"
    assert len(list((tmp_path / "my-dog" / "runs").glob("0*"))) == 2
