"""Images in a terminal: by which protocol, and in which pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbcli.cli.terminal.images import _iterm, _kitty, ability

Run = Callable[..., Any]


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
