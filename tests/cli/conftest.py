"""Command lines run through main(), in this process, in a folder of the test's own."""

from __future__ import annotations

import functools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dbcli.cli.app import main
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """A process makes the tree of its commands for one command line; here thousands of lines share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs one command line; signal handlers are put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            main([str(word) for word in words])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest random base as a diffusers folder: plumbing is tested with it, never pictures."""
    return write_small_base(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photos, a caption and a stray file."""
    folder = tmp_path / "photos"
    for number, colour in enumerate([(200, 100, 50), (60, 120, 200), (90, 200, 90)]):
        photo_makers.save(folder / f"dog{number:02d}.jpg", photo_makers.plain(colour))
    (folder / "dog01.txt").write_text("a photo of a sks dog on a sofa\n", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"\0\1")
    return folder


@pytest.fixture
def project(run: Run, tmp_path: Path, base_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project on the small base with the subject dog; the current folder is inside it."""
    monkeypatch.chdir(tmp_path)
    assert run("init", "myproj", "--base", base_folder).code == 0
    monkeypatch.chdir(tmp_path / "myproj")
    assert run("add-subject", "dog", "--class", "dog", photos).code == 0
    return tmp_path / "myproj"


@pytest.fixture(scope="session")
def trained_once(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run of one step, made once; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("trained")
    for number, colour in enumerate([(200, 100, 50), (60, 120, 200)]):
        photo_makers.save(folder / "photos" / f"dog{number}.png", photo_makers.plain(colour))
    sets = ["prior.images=2", "prior.steps=1", "draw.steps=2", "draw.count=2"]
    project = str(folder / "p")
    for words in (
        ["init", project, "--base", str(base_folder)],
        ["-C", project, "add-subject", "dog", "--class", "dog", str(folder / "photos")],
        [
            "-C",
            project,
            "train",
            "--subject",
            "dog",
            "--token",
            "sks",
            "--steps",
            "1",
            *(f"--set={one}" for one in sets),
        ],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
    return folder / "p"


@pytest.fixture
def trained_project(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project with one finished run, 0001-dog; the current folder is inside it."""
    folder = tmp_path / "trained"
    shutil.copytree(trained_once, folder)
    monkeypatch.chdir(folder)
    return folder
