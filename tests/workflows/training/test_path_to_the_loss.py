"""How deep a reader has to go from the command `train` to the loss, measured in a real run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import dbcli
from dbcli.cli.app import main
from dbcli.diffusion.training import losses
from tests.cli.made_projects import untrained_project

PACKAGE = Path(dbcli.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"
MOST_FRAMES, MOST_FILES = 7, 5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The frames of this package at the first loss of a run, the command first: "cli/commands/train.py train"."""
    project = untrained_project(tmp_path_factory.mktemp("path"))
    found: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is losses.dreambooth_loss.__code__ and not found:
            at: FrameType | None = frame
            while at is not None:
                file = Path(at.f_code.co_filename)
                if file.is_relative_to(PACKAGE):
                    found.insert(0, f"{file.relative_to(PACKAGE).as_posix()} {at.f_code.co_name}")
                at = at.f_back

    words = ("train", "--subject", "dog", "--steps", "1", "--set=prior.enabled=false", "--quiet")
    sys.setprofile(look)
    try:
        main(["-C", str(project), *words])
    except SystemExit as ended:
        assert not ended.code
    finally:
        sys.setprofile(None)
    return found[found.index("cli/commands/train.py train") :]


def test_from_the_command_to_the_loss_are_few_frames_in_few_files(path: list[str]) -> None:
    assert path[-1] == "diffusion/training/losses.py dreambooth_loss"
    assert len(path) <= MOST_FRAMES, path
    assert len({one.split()[0] for one in path}) <= MOST_FILES, path


def test_the_way_is_written_down_as_it_is(path: list[str]) -> None:
    text = DESIGN.read_text(encoding="utf-8")
    section = text.split("### From `dreambooth train` to the loss\n")[1].split("\n### ")[0].split("\n## ")[0]
    assert [
        f"{file} {name}" for file, name in re.findall(r"^\d+\. `([\w/.]+)` `(?:\w+\.)?(\w+)`", section, re.M)
    ] == path
    step = re.search(r"To follow one training step, read (.+?):", section, re.S)
    assert step is not None
    files = re.findall(r"`([\w/.]+)`", step[1])
    assert 0 < len(files) <= 6
    assert all((PACKAGE / file).is_file() for file in files)
