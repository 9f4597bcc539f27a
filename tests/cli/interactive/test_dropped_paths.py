"""Paths as terminals write them when files are dropped there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbcli.cli.interactive.dropped_paths import dropped_path, dropped_paths

Run = Callable[..., Any]


def test_what_a_terminal_writes_for_a_dropped_file_is_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "Rex & Co (1)"
    folder.mkdir()
    text = str(folder)
    escaped = "".join("\\" + character if character in " &()" else character for character in text)
    for answer in (text, f"'{text}'", f'"{text}"', escaped, f" {escaped} ", folder.as_uri()):
        assert dropped_path(answer) == folder, answer


def test_several_dropped_files_are_several_photos(tmp_path: Path) -> None:
    files = [tmp_path / "a b.jpg", tmp_path / "c.jpg"]
    for file in files:
        file.touch()
    assert dropped_paths(f"'{files[0]}' {files[1]}") == files


def test_words_that_name_no_two_files_stay_one_path() -> None:
    assert dropped_paths("my photos") == [Path("my photos")]
    assert dropped_paths("it's") == [Path("it's")]
