"""Options that every command takes, read before any parser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbcli.cli.arguments import arranged, general_options

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--json", "--subject", "dog"], ["--json", "train", "--subject", "dog"]),
        (["runs", "list", "-C", "p", "-q"], ["--project", "p", "--quiet", "runs", "list"]),
        (["runs", "list", "-Cp", "-qy"], ["--project", "p", "--quiet", "--yes", "runs", "list"]),
        (["train", "--resume", "-Cp"], ["--project", "p", "train", "--resume", "newest"]),
        (["runs", "list", "-C"], ["runs", "list", "-C"]),
        (["train", "--resume"], ["train", "--resume", "newest"]),
        (["train", "--resume", "--json"], ["--json", "train", "--resume", "newest"]),
        (["train", "--resume", "3"], ["train", "--resume", "3"]),
        (["generate", "--", "--json"], ["generate", "--", "--json"]),
    ],
)
def test_options_for_all_commands_may_stand_anywhere(words: list[str], expected: list[str]) -> None:
    assert arranged(words) == expected


def test_offline_is_known_before_anything_is_parsed() -> None:
    assert "--offline" in general_options(["init", "p", "--offline"])
    assert "--offline" not in general_options(["generate", "--", "--offline"])
