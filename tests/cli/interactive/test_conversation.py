"""The language of `generate --interactive`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbcli.cli.interactive.conversation import Line, understood, with_setting
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
