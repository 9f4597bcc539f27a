"""The words that the embedded base was taught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbcli.workflows.setup.embedded_words import KINDS, embedded_words
from pretraining.words import taught_words, write_words


def test_the_shipped_words_are_those_of_the_pretraining(tmp_path: Path) -> None:
    write_words(tmp_path / "words.json")
    shipped = Path(__file__).parents[3] / "dbcli" / "embedded" / "words.json"
    assert shipped.read_text() == (tmp_path / "words.json").read_text()
    assert json.loads(shipped.read_text()) == taught_words()


@pytest.mark.parametrize(
    ("noun", "known"),
    [("dog", True), ("Dog", True), ("teddy bear", True), ("old  dog", True), ("labrador", False), ("dogs", False)],
)
def test_a_noun_is_known_where_it_is_or_ends_in_one_that_was_taught(noun: str, known: bool) -> None:
    assert embedded_words().knows_noun(noun) == known


@pytest.mark.parametrize(
    ("noun", "near"),
    [
        ("labrador", "dog"),
        ("golden retriever", "dog"),
        ("Plushie", "stuffed animal"),
        ("bagpack", "backpack"),
        ("xyzzy", None),
    ],
)
def test_the_nearest_noun_is_a_kind_of_or_a_slip_for(noun: str, near: str | None) -> None:
    assert embedded_words().near_noun(noun) == near


def test_kinds_are_of_nouns_that_were_taught_and_none_is_one_itself() -> None:
    words = embedded_words()
    assert set(KINDS) <= set(words.nouns)
    assert not {kind for kinds in KINDS.values() for kind in kinds.split()} & set(words.all_nouns)


def test_plain_backgrounds_are_every_colour_in_words_that_were_taught() -> None:
    words = embedded_words()
    assert {"on an orange background", "on a red background", "on a gray background"} <= set(words.plain_backgrounds)
    assert len(words.plain_backgrounds) == len(set(words.plain_backgrounds)) == len(words.colours)
    assert words.unknown(words.plain_backgrounds) == []
    assert {len(phrase.split()) for phrase in words.plain_backgrounds} == {4}


def test_words_that_were_never_taught_are_found_and_the_subject_s_own_are_not() -> None:
    texts = ["a sks dog in Paris", "a photo of a sks dog, wearing a red hat, in the snow", "a toy robot in Paris"]
    assert embedded_words().unknown(texts, ["sks dog"]) == ["Paris", "wearing", "hat"]
    assert embedded_words().unknown(["a 3d render of a dog on an orange background"]) == []
