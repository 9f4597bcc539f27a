"""Subjects on the embedded base: captions by its own judge, and words that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.project import photo_makers

Run = Callable[..., Any]


@pytest.fixture
def tiny(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert run("init", "myproj", "--base", "tiny").code == 0
    monkeypatch.chdir(tmp_path / "myproj")
    return tmp_path / "myproj"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, colour in enumerate([(230, 30, 30), (30, 60, 220)]):
        photo_makers.save(tmp_path / "in" / f"{number}.png", photo_makers.plain(colour))
    (tmp_path / "in" / "1.txt").write_text("a {rex} that came with words")
    return tmp_path / "in"


def captions(project: Path) -> list[str]:
    return [path.read_text().strip() for path in sorted((project / "subjects/rex/photos").glob("*.txt"))]


def test_what_is_behind_the_subject_goes_into_a_caption_that_is_shown_and_can_be_edited(
    run: Run, tiny: Path, photos: Path
) -> None:
    done = run("add-subject", "rex", photos, "--class", "dog", "--token", "sks")
    assert done.code == 0, done.err
    (caption,) = captions(tiny)
    assert caption == "a {rex} on a red background"
    assert f"0001.txt: {caption}" in done.out
    (tiny / "subjects/rex/photos/0001.txt").write_text("a {rex} at night\n")
    planned = run("train", "--subject", "rex", "--steps", 1, "--set=prior.images=2", "--set=prior.steps=1", "--json")
    record = planned.document["subjects"][0]
    assert record["captions"] == ["a {rex} at night", "a {rex} that came with words"]


@pytest.mark.parametrize("switch", ["--no-caption", "setting"])
def test_captions_are_off_by_an_option_and_by_the_setting(run: Run, tiny: Path, photos: Path, switch: str) -> None:
    words = ["add-subject", "rex", photos, "--class", "dog"]
    if switch == "setting":
        with (tiny / "dreambooth.yaml").open("a") as file:
            file.write("overrides: {images.caption_share: 0}\n")
    else:
        words.append(switch)
    done = run(*words, "--json")
    assert done.code == 0, done.err
    assert (done.document["captions"], done.document["caption_texts"], captions(tiny)) == ([], [], [])


def test_a_noun_that_the_embedded_base_does_not_know_is_told_with_the_one_to_take(
    run: Run, tiny: Path, photos: Path
) -> None:
    done = run("add-subject", "rex", photos, "--class", "labrador", "--no-caption")
    assert done.code == 0, done.err
    assert "tiny does not know 'labrador'; it knows dog, cat, backpack," in done.err
    assert "take --class dog (dreambooth subjects set rex --class dog)" in done.err
    assert run("subjects", "set", "rex", "--class", "dog").code == 0
    again = run("add-subject", "max", photos, "--class", "dog", "--no-caption")
    assert "does not know" not in again.err
