"""Hints that can be pasted: words quoted for the shell, packages installed beside this program."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dbcli import hints

AWKWARD = ["my photos", "Rex & Co", "it's", 'a "b"', "$HOME", "a;b", "(1)", "*", "~x"]


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize("word", AWKWARD)
def test_a_shell_reads_a_quoted_word_as_it_was(word: str) -> None:
    line = hints.command("printf", "%s", word)
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout == word


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize("prompt", [*AWKWARD, "a $ks dog in space", "a dog, 50% off"])
def test_a_shell_reads_a_quoted_prompt_as_it_was(prompt: str) -> None:
    line = f"printf %s {hints.quoted_prompt(prompt)}"
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout == prompt


def test_a_prompt_without_marks_has_the_quotes_of_every_shell() -> None:
    assert hints.quoted_prompt("a {dog} in space") == '"a {dog} in space"'


def test_plain_words_are_left_alone() -> None:
    assert hints.command("dreambooth", "train", "--resume", "0001-dog") == "dreambooth train --resume 0001-dog"


def test_a_command_for_another_folder_goes_there_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Rex & Co").mkdir()
    monkeypatch.chdir(tmp_path)
    line = hints.inside(Path("Rex & Co"), "pwd")
    told = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(told) == tmp_path / "Rex & Co"


def test_a_command_in_another_folder_names_no_project() -> None:
    text = "cd new; dreambooth add-subject"
    assert hints.for_project(text, Path("other")) == text


@pytest.mark.parametrize("here", [".", "./", "../{name}"])
def test_no_one_is_sent_to_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert hints.inside(Path(here.format(name=tmp_path.name)), "dreambooth") == "dreambooth"


def test_a_package_is_installed_by_the_pip_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: str(Path(sys.executable).parent / "pip"))
    assert hints.installing("ray") == "pip install ray"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/pip")
    assert hints.installing("ray") == f"{shlex.quote(sys.executable)} -m pip install ray"


def test_without_pip_uv_installs_into_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "find_spec", lambda name: None)
    assert hints.installing("ray", "wandb") == f"uv pip install --python {shlex.quote(sys.executable)} ray wandb"


def test_with_pipx_the_programs_own_environment_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/pipx/venvs/dreambooth-cli")
    assert hints.installing("ray") == "pipx inject dreambooth-cli ray"


def test_no_hint_names_this_project_as_a_package_of_an_index() -> None:
    package = Path(hints.__file__).parent
    named = [path for path in package.rglob("*.py") if "dreambooth-cli[" in path.read_text(encoding="utf-8")]
    pages = [path for path in (package.parent / "docs").glob("*.md") if "dreambooth-cli[" in path.read_text("utf-8")]
    assert named + pages == []
