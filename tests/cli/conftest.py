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
from tests.cli.made_projects import command
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


def three_photos(folder: Path) -> Path:
    """A folder with three photos, a caption and a stray file."""
    for number, colour in enumerate([(200, 100, 50), (60, 120, 200), (90, 200, 90)]):
        photo_makers.save(folder / f"dog{number:02d}.jpg", photo_makers.plain(colour))
    (folder / "dog01.txt").write_text("a photo of a sks dog on a sofa\n", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"\0\1")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return three_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def project_once(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on the small base with the subject dog, made once; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("project")
    command("init", folder / "p", "--base", base_folder)
    command("-C", folder / "p", "add-subject", "dog", "--class", "dog", three_photos(folder / "photos"))
    return folder / "p"


@pytest.fixture
def project(project_once: Path, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project on the small base with the subject dog; the current folder is inside it."""
    folder = tmp_path / "myproj"
    shutil.copytree(project_once, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def trained_once(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run of one step, made once; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("trained")
    for number, colour in enumerate([(200, 100, 50), (60, 120, 200)]):
        photo_makers.save(folder / "photos" / f"dog{number}.png", photo_makers.plain(colour))
    few = ("--set=prior.images=2", "--set=prior.steps=1", "--set=draw.steps=2", "--set=draw.count=2")
    command("init", folder / "p", "--base", base_folder)
    command("-C", folder / "p", "add-subject", "dog", "--class", "dog", folder / "photos")
    command("-C", folder / "p", "train", "--subject", "dog", "--token", "sks", "--steps", 1, *few)
    return folder / "p"


@pytest.fixture
def trained_project(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project with one finished run, 0001-dog; the current folder is inside it."""
    folder = tmp_path / "trained"
    shutil.copytree(trained_once, folder)
    monkeypatch.chdir(folder)
    return folder
