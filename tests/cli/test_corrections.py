"""Slips in a command line: the hint is the whole line as it was meant, and it works."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbcli.cli.corrections import with_options_added

Run = Callable[..., Any]


def hinted(err: str) -> str:
    return str(err.split("→ ")[1].splitlines()[0])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train dog --steps 3", "dreambooth train --steps 3 --subject dog"),
        ("train dgo", "dreambooth train --subject dog"),
        ("train --subject Dog --dry-run", "dreambooth train --subject dog --dry-run"),
        ("train --subject=dog,Dog", "dreambooth train --subject=dog,dog"),
        ("-C . subjects remove Dog --yes", "dreambooth -C . subjects remove dog --yes"),
        ("subjects set dgo --token tich", "dreambooth subjects set dog --token tich"),
        ("trian --subject dog", "dreambooth train --subject dog"),
        ("subjects lits", "dreambooth subjects list"),
        ("train --subjct dog", "dreambooth train --subject dog"),
        ("train --subject dog --stpes 4", "dreambooth train --subject dog --steps 4"),
        ("train --subject dog --dry", "dreambooth train --subject dog --dry-run"),
        ("train --subjct=dog", "dreambooth train --subject=dog"),
        ("eval 1", "dreambooth eval --run 1"),
    ],
)
def test_the_hint_is_the_line_that_was_meant(run: Run, project: Path, typed: str, meant: str) -> None:
    ended = run(*shlex.split(typed))
    assert ended.code in (2, 3), ended.err
    assert hinted(ended.err) == meant


@pytest.mark.parametrize(
    "typed", ["generate 'a dog' --dry-run", "reg make --class dog --seed 3", "eval --steps 4", "bench --run 1"]
)
def test_no_option_is_proposed_that_is_merely_spelt_alike(run: Run, project: Path, typed: str) -> None:
    ended = run(*shlex.split(typed))
    assert ended.code == 2
    assert hinted(ended.err).endswith(" --help")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("export", "dreambooth runs list shows the runs; add the number of one"),
        ("export 9", "dreambooth runs list"),
        ("export 1", "dreambooth export 1 --to checkpoint"),
        ("export 1 --to hub", "add --repo NAME"),
        ("reg make", "add --class NOUN"),
    ],
)
def test_what_is_missing_is_proposed_only_where_it_can_be_typed(
    run: Run, trained_project: Path, typed: str, hint: str
) -> None:
    ended = run(*shlex.split(typed))
    assert ended.code in (2, 4), ended.err
    assert hinted(ended.err) == hint


def test_a_textual_inversion_is_proposed_as_the_file_that_it_can_be(run: Run, trained_project: Path) -> None:
    record = trained_project / "runs" / "0001-dog" / "run.json"
    record.write_text(record.read_text().replace('"method": "full"', '"method": "textual-inversion"'))
    assert hinted(run("export", 1).err) == "dreambooth export 1 --to embedding"


def test_a_name_that_is_near_nothing_is_no_slip(run: Run, project: Path) -> None:
    ended = run("train", "--subject", "zebra")
    assert "Did you mean" not in ended.err
    assert hinted(ended.err) == "dreambooth add-subject zebra"


def test_paths_in_hints_are_quoted_and_nobody_is_sent_where_they_are(
    run: Run, tmp_path: Path, base_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("init", "Rex & Co's", "--base", base_folder)
    line = made.out.split("Next: ")[1].strip()
    assert shlex.split(line.split("; ")[0]) == ["cd", "Rex & Co's"]
    assert line.endswith("; dreambooth add-subject")
    again = run("init", "Rex & Co's", "--base", base_folder)
    assert again.code == 6
    assert shlex.split(hinted(again.err).split("; ")[0]) == ["cd", str(tmp_path / "Rex & Co's")]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run("init", ".", "--base", base_folder).out.split("Next: ")[1].strip() == "dreambooth add-subject"
    folders = [tmp_path / "a & b" / name for name in ("1_sks dog", "1_zwx cat")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_bytes((photos / "dog00.jpg").read_bytes())
    told = run("add-subject", "rex", tmp_path / "a & b")
    assert told.code == 2
    assert shlex.split(hinted(told.err).split(": ")[1])[-1] == str(tmp_path / "a & b")


def test_hints_name_the_project_where_they_would_not_find_it(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    there = ["-C", "../myproj"]
    assert "\n  dreambooth -C ../myproj train --subject dog --token " in run(*there).out
    told = run(*there, "train", "dgo", "--dry-run")
    assert hinted(told.err) == "dreambooth -C ../myproj train --dry-run --subject dog"
    refused = run(*there, "add-subject", "dog", "--class", "dog", "--token", "tich", project)
    line = hinted(refused.err).split(" gives")[0]
    assert line == "dreambooth -C ../myproj subjects set dog --token tich --class dog"
    assert run(*shlex.split(line)[1:]).code == 0
    monkeypatch.chdir(project / "subjects")
    assert "\n  dreambooth train --subject dog" in run("-C", "..").out


def test_options_are_added_before_the_words_that_are_none() -> None:
    line = with_options_added(["generate", "--like", "x.png", "--", "a -dog"], "add --seed 5")
    assert line == "dreambooth generate --like x.png --seed 5 -- 'a -dog'"
