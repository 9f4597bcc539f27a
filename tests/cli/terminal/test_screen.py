"""What a person's own text may do to a terminal: nothing."""

from __future__ import annotations

from dbcli.cli.terminal.screen import visible


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert visible("a\x1b[31m\x9b2J\u202eb\tc\n") == "a\\u001b[31m\\u009b2J\\u202eb\tc\n"
