"""Threads turn while they wait on a quiet machine, and sleep on a busy one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.workflows.openmp import BUSY, QUIET, turns_before_sleep


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("0.20 0.18 0.12 1/80 11206\n", QUIET),
        ("3.20 2.18 1.12 1/80 11206\n", QUIET),  # what ran a minute ago runs no longer
        ("0.20 0.18 0.12 3/80 11206\n", BUSY),
        ("", BUSY),
        ("a b c d\n", BUSY),
    ],
)
def test_what_runs_now_decides(text: str, turns: str, tmp_path: Path) -> None:
    load = tmp_path / "loadavg"
    load.write_text(text)
    assert turns_before_sleep(load) == turns


def test_where_nothing_is_known_threads_sleep(tmp_path: Path) -> None:
    assert turns_before_sleep(tmp_path / "none") == BUSY
