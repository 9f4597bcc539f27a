"""Paths in settings: typed ones are seen from the current folder, those in files from the project's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.workflows.setup.effective_settings import resolve_profile
from dbcli.workflows.setup.open import init_project

OWN = "method: lora\ntrain: {steps: 7}\nprior: {folder: classes}\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one and no project."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def made(folder: Path, profile: str | None = None, more: str = "") -> Layout:
    init_project(folder, "tiny", profile, offline=True)
    layout = Layout(folder)
    layout.settings_file.write_text(layout.settings_file.read_text() + more)
    return layout


def test_a_profile_of_ones_own_is_found_from_within_the_project(elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "mine.yaml").write_text(OWN)
    layout = made(tmp_path / "p", "mine.yaml")
    for folder in (layout.root, tmp_path, elsewhere):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            name, profile = resolve_profile(layout)
        assert (Path(name), profile.train.steps) == (elsewhere / "mine.yaml", 7)


def test_paths_in_the_projects_file_are_seen_from_its_folder(elsewhere: Path, tmp_path: Path) -> None:
    layout = made(tmp_path / "p", more="overrides: {prior: {folder: classes}, train: {steps: 9}}\n")
    (layout.root / "mine.yaml").write_text(OWN)
    assert resolve_profile(layout)[1].prior.folder == str(layout.root / "classes")
    layout.settings_file.write_text(layout.settings_file.read_text() + "profile: mine.yaml\n")
    name, profile = resolve_profile(layout)
    assert (Path(name), profile.train.steps) == (layout.root / "mine.yaml", 9)


def test_paths_that_are_typed_are_seen_from_the_current_folder(elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "mine.yaml").write_text(OWN)
    layout = made(tmp_path / "p")
    typed = resolve_profile(layout, profile="mine.yaml", sets=["prior.folder=dogs"])[1]
    assert typed.prior.folder == str(elsewhere / "dogs")
    assert resolve_profile(layout, sets=[f"prior.folder={tmp_path}"])[1].prior.folder == str(tmp_path)
    home = resolve_profile(layout, sets=["prior.folder=~/dogs"])[1].prior.folder
    assert home == str(Path.home() / "dogs")


def test_a_name_with_a_slip_is_still_one(elsewhere: Path, tmp_path: Path) -> None:
    layout = made(tmp_path / "p", more="profile: tiny-lroa\n")
    with pytest.raises(UsageError, match="Did you mean 'tiny-lora'"):
        resolve_profile(layout)
