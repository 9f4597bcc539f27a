"""A real project folder for every test that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import ProjectSettings, save_settings


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "myproj"
    root.mkdir()
    made = Layout(root)
    save_settings(made, ProjectSettings(base="tiny"))
    return made
