"""The language of `generate --interactive`, and a talk from a script."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from dbcli.cli.interactive.conversation import COMMANDS, Line, understood, with_setting
from dbcli.cli.interactive.prompt_line import WordCompleter
from dbcli.cli.terminal.images import _iterm, _kitty, ability
from dbcli.errors import UsageError
from dbcli.workflows.generation.request import GenerateRequest

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("a {dog} in space\n", Line("generate", "a {dog} in space")),
        ("  \n", Line("nothing")),
        (":seed 7", Line("seed", 7)),
        (":steps 30", Line("steps", 30)),
        (":n 4", Line("n", 4)),
        (":guidance 5", Line("guidance", 5.0)),
        (":negative  blurry, dark ", Line("negative", "blurry, dark")),
        (":negative", Line("negative", "")),
        (":grid on", Line("grid", True)),
        (":AGAIN", Line("again")),
        (":q", Line("quit")),
    ],
)
def test_a_line_is_a_prompt_or_a_command(line: str, meant: Line) -> None:
    assert understood(line) == meant


@pytest.mark.parametrize("line", [":bad", ":", ":seed", ":seed x", ":seed -2", ":steps 1.5", ":grid maybe"])
def test_what_is_not_understood_is_told(line: str) -> None:
    with pytest.raises(UsageError):
        understood(line)


def test_a_changed_setting_leaves_the_old_request_alone() -> None:
    before = GenerateRequest(["a dog"], options={"steps": 5}, grid=True)
    after = with_setting(before, "n", 3)
    assert before.options == {"steps": 5}
    assert (after.options, after.prompts, after.grid) == ({"steps": 5, "count": 3}, ["a dog"], True)
    assert with_setting(before, "seed", 9).seed == 9


def offered(text: str) -> list[str]:
    completer = WordCompleter(["{dog}", "sks dog", "sks"], ["ddim", "dpm++"])
    return [one.text for one in completer.get_completions(Document(text), CompleteEvent())]


def test_subjects_identifiers_commands_and_values_are_completed() -> None:
    assert offered("a {d") == ["{dog}"]
    assert offered("a sk") == ["sks dog", "sks"]
    assert offered(":se") == [":seed", ":settings"]
    assert offered(":sampler d") == ["ddim", "dpm++"]
    assert offered(":grid o") == ["on", "off"]
    assert offered(":seed 1") == []
    assert offered(":") == [f":{word}" for word in COMMANDS]


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


@pytest.mark.parametrize(
    ("environment", "colours", "can"),
    [
        ({"TERM": "xterm-kitty"}, "truecolor", "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x"}, "truecolor", "blocks"),
        ({"TERM_PROGRAM": "WezTerm"}, "truecolor", "iterm"),
        ({"TERM": "xterm-256color"}, "256", "blocks"),
        ({"TERM": "xterm"}, "standard", "none"),
        ({"TERM": "xterm-kitty"}, None, "none"),
    ],
)
def test_pictures_are_shown_only_where_they_can_be(environment: dict[str, str], colours: str | None, can: str) -> None:
    assert ability(environment, is_terminal=True, colours=colours) == can
    assert ability(environment, is_terminal=False, colours=colours) == "none"


def test_a_picture_is_sent_whole_in_pieces_that_kitty_takes() -> None:
    import base64
    import re

    data = bytes(range(256)) * 40
    parts = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", _kitty(data, 24))
    assert base64.b64decode("".join(text for _, text in parts)) == data
    assert all(len(text) <= 4096 for _, text in parts)
    assert parts[0][0] == "a=T,f=100,c=24,m=1"
    assert parts[-1][0] == "m=0"
    assert f"size={len(data)};width=24" in _iterm(data, 24)


def test_the_document_is_one(run: Run, trained_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(talked(run, monkeypatch).out) == {"run": "0001-dog", "drawings": []}
