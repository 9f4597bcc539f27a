"""Captions in another order, in which a subject's words stay together."""

from __future__ import annotations

import itertools

import pytest

from dbcli.project.prompts.shuffling import shuffled_caption, shuffled_tags, shuffled_words


def backwards(count: int) -> list[int]:
    return list(range(count))[::-1]


def test_words_change_places_and_the_subject_s_stay_one_with_their_article() -> None:
    text = "two cats beside a sks dog, asleep"
    assert shuffled_words(text, "sks dog", backwards) == "asleep a sks dog, beside cats two"


@pytest.mark.parametrize("text", ["a sks dog on grass", "the sks dog's ball", "a dog and a sks dog"])
def test_no_order_of_words_loses_or_separates_the_subject(text: str) -> None:
    for order in itertools.permutations(range(len(text.split()))):
        found = shuffled_words(text, "sks dog", lambda count, order=order: [one for one in order if one < count])
        assert sorted(found.split()) == sorted(text.split())
        assert found.count("sks dog") == text.count("sks dog")


def test_a_noun_of_several_words_stays_whole() -> None:
    assert shuffled_words("on a sks coffee mug here", "sks coffee mug", backwards) == "here a sks coffee mug on"


@pytest.mark.parametrize("word", ["<mwf>", "*mwf", "mwf"])
def test_an_identifier_that_begins_with_a_mark_stays_with_its_noun(word: str) -> None:
    assert (
        shuffled_words(f"on grass a {word} dog, asleep", f"{word} dog", backwards) == f"asleep a {word} dog, grass on"
    )
    assert shuffled_words(f"{word} dog asleep", f"{word} dog", backwards) == f"asleep {word} dog"


def test_tags_change_places_whole() -> None:
    assert shuffled_tags(" red, in the snow ,, a sks dog", backwards) == "a sks dog, in the snow, red"


@pytest.mark.parametrize(
    ("sentence", "rest", "how", "expected"),
    [
        ("a photo of a sks dog", " on green grass", "words", "a photo of a sks dog grass green on"),
        ("a photo of a sks dog", ", on a sofa", "words", "a photo of a sks dog, sofa a on"),
        ("", "two cats beside a sks dog", "words", "a sks dog beside cats two"),
        # What goes on from the sentence belongs to it.
        ("a sks dog", " on grass, sunny, at noon", "tags", "a sks dog on grass, at noon, sunny"),
        ("a sks dog", ", on grass, sunny", "tags", "a sks dog, sunny, on grass"),
        ("", "red, a sks dog, sunny", "tags", "sunny, a sks dog, red"),
        ("a sks dog", " on grass", "tags", "a sks dog on grass"),
        ("a sks dog", "", "words", "a sks dog"),
        ("a sks dog", "", "tags", "a sks dog"),
    ],
)
def test_the_sentence_stays_before_a_caption_in_any_order(sentence: str, rest: str, how: str, expected: str) -> None:
    assert shuffled_caption(sentence, rest, "sks dog", how, backwards) == expected
