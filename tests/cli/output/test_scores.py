"""What is shown beside scores: here what the demo proposes in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.cli.output.scores import show_demo
from dbcli.cli.terminal.screen import Screen
from dbcli.workflows.demo import Demonstration


def test_the_demo_proposes_its_own_subject_in_a_folder_whose_name_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my demo; rm"
    show_demo(Screen(), Demonstration(folder, "0001-fox", "mwf fox", folder / "demo.png", None, {"train": 3.0}))
    said = capsys.readouterr().out
    assert f"Next: cd '{folder}'; dreambooth generate \"a mwf fox on a wooden table\" --grid" in said
