"""What `runs list`, `runs show` and `runs compare` tell of runs on terminals of 80 and 120 columns."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.made_projects import TRAIN, command, trained_project

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are a Unix thing", allow_module_level=True)

from tests.cli.terminals import Terminal
from tests.reliability.processes import ForkServer

Run = Callable[..., Any]
SCORE = ("--judge", "tiny", "-n", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one subject, of which the first is scored and the third differs by its method."""
    folder = trained_project(tmp_path_factory.mktemp("listed"))
    command("-C", folder, "train", "--subject", "dog", *TRAIN, "--steps", 3, "--set=prior.weight=0.5", "--quiet")
    command("-C", folder, "train", "--subject", "dog", *TRAIN, "--method", "lora", "--quiet")
    (folder / "prompts.txt").write_text("a {identifier} {class}\na {identifier} {class} in space\n")
    command("-C", folder, "eval", "--run", 1, "--prompts", folder / "prompts.txt", *SCORE, "--quiet")
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.delenv("COLUMNS", raising=False)
    return made


def test_a_list_says_what_sets_runs_apart_and_how_well_they_scored(run: Run, project: Path) -> None:
    listed = run("runs", "list", "--json").document["runs"]
    assert [one["differs"] for one in listed] == [["steps 2", "prior weight 1"], ["steps 3", "prior weight 0.5"], []]
    scores = run("runs", "show", 1, "--json").document["scores"]
    assert listed[0]["scores"] == scores[0]
    assert listed[0]["scores"]["suite"] == "prompts"
    assert {"dino", "clip_t"} <= set(listed[0]["scores"])
    assert listed[1]["scores"] is None


@pytest.mark.parametrize("columns", [80, 120])
def test_a_list_fits_the_terminal_and_breaks_no_word(project: Path, columns: int) -> None:
    with Terminal(["runs", "list"], project, columns=columns) as terminal:
        assert terminal.end() == 0
        lines = terminal.lines
    header = next(line for line in lines if line.startswith("run "))
    for title in ("subject", "method", "what differs", "DINO", "CLIP-T"):
        assert title in header
    first = next(line for line in lines if line.startswith("0001-dog"))
    assert re.search(r"sks dog +full +.*steps 2.* 0\.\d{3} +-?0\.\d{3}", first), lines
    assert any("prior weight" in line for line in lines)
    assert ("made (UTC)" in header) is (columns == 120)


def test_a_pipe_has_no_width_and_every_column(run: Run, project: Path) -> None:
    header, first, *_ = run("runs", "list").out.splitlines()
    assert "made (UTC)" in header
    assert first.startswith("0001-dog")


def test_a_run_is_shown_with_its_scores_and_its_rate(run: Run, project: Path) -> None:
    shown = run("runs", "show", 1).out
    assert re.search(r"^learning rate +0\.01$", shown, re.MULTILINE)
    on_one_line = " ".join(shown.split())
    assert re.search(r"scores DINO \d\.\d{3}, .*\(suite prompts, by tiny-dino 3, tiny-clip\)", on_one_line)
    assert re.search(r"beyond class -?\d\.\d{3}, identified \d+%, copies \d+%, PRES", on_one_line)


def test_a_run_is_shown_with_the_settings_that_are_not_its_profile_s(run: Run, project: Path) -> None:
    title, table = run("runs", "show", 2).out.partition("Different from the profile full")[1:]
    assert title
    shown = [line.split() for line in table.splitlines()]
    assert ["train.steps", "3", "800"] in shown
    assert ["prior.weight", "0.5", "1.0"] in shown
    assert not any(line[:1] == ["train.batch_size"] for line in shown)


def test_prodigy_s_rate_is_shown_as_the_factor_it_is(run: Run, trained_project: Path) -> None:
    changed(trained_project, "train", optimizer="prodigy", learning_rate=1.0)
    assert re.search(r"^learning rate +1 times the rate that Prodigy finds$", run("runs", "show", 1).out, re.MULTILINE)


def test_a_run_whose_settings_are_damaged_is_shown_all_the_same(run: Run, trained_project: Path) -> None:
    changed(trained_project, "train", steps="many")
    ended = run("runs", "show", 1)
    assert ended.code == 0
    assert "Run 0001-dog" in ended.out
    assert "train.steps: should be a whole number (found 'many')" in ended.err


def changed(project: Path, section: str, **settings: object) -> None:
    """Puts other settings into the record of a project's first run."""
    file = project / "runs" / "0001-dog" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["profile"][section] |= settings
    file.write_text(json.dumps(record), encoding="utf-8")


def test_a_comparison_has_a_column_a_run_and_scores_what_was_not_scored(
    server: ForkServer, run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(shutil.copytree(project, tmp_path / "copy"))
    monkeypatch.chdir(project)
    with Terminal(
        ["runs", "compare", "1", "2", "3", "--prompts", "prompts.txt", *map(str, SCORE)], project, server=server
    ) as terminal:
        assert terminal.end() == 0
        lines = terminal.lines
    assert any(re.fullmatch(r"score +0001-dog +0002-dog +0003-dog", line) for line in lines), lines
    assert any(re.fullmatch(r"score +0002-dog +0003-dog", line) for line in lines), lines
    assert any(re.fullmatch(r"train\.steps +2 +3 +2", line) for line in lines), lines
    listed = run("runs", "list", "--json").document["runs"]
    assert all(one["scores"] is not None for one in listed)


def test_prose_beneath_a_listing_is_broken_between_words(server: ForkServer, project: Path) -> None:
    with Terminal(["tokens", "suggest", "-n", "2", "--class", "dog"], project, server=server) as terminal:
        assert terminal.end() == 0
        assert "relative to the class\nnoun. Weaker is better." in terminal.text
