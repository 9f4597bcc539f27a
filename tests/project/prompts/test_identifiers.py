from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcli.errors import Collision, PromptError, UsageError
from dbcli.project.prompts.identifiers import (
    Words,
    check_class_noun,
    check_free,
    check_identifier,
    is_of,
    render_with,
    render_without,
    render_without_for,
    without_identifier,
)

DOG = {"dog": Words("sks", "dog")}
TWO = {"dog": Words("sks", "dog"), "bag": Words("ohwx", "backpack")}


@pytest.mark.parametrize(
    ("prompt", "drawn", "scored"),
    [
        ("a {dog} in space", "a sks dog in space", "a dog in space"),
        ("a sks dog in space", "a sks dog in space", "a dog in space"),
        ("a photo of a {identifier} {class}", "a photo of a sks dog", "a photo of a dog"),
        ("a {class}", "a dog", "a dog"),
        ("a dog in space", "a dog in space", "a dog in space"),
        ("“{dog}” & <b> {} { dog } {{", "“sks dog” & <b> {} { dog } {{", "“dog” & <b> {} { dog } {{"),
    ],
)
def test_one_subject(prompt: str, drawn: str, scored: str) -> None:
    assert render_with(prompt, DOG) == drawn
    assert render_without(prompt, DOG) == scored


def test_two_subjects() -> None:
    prompt = "a {dog} wearing a {bag}, sks"
    assert render_with(prompt, TWO) == "a sks dog wearing a ohwx backpack, sks"
    assert render_without(prompt, TWO) == "a dog wearing a backpack,"


@pytest.mark.parametrize("prompt", ["a {cat}", "{identifier} {class}", "{class}"])
def test_a_field_that_is_not_clear_is_an_error(prompt: str) -> None:
    with pytest.raises(PromptError, match=r"\{dog\}, \{bag\}"):
        render_with(prompt, TWO)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a sks dog", "a dog"),
        ("sks dog", "dog"),
        ("a dog sks", "a dog"),
        ("a dog (sks), red", "a dog (), red"),
        ("a SKS dog, Sks", "a dog,"),
        ("a sks sks dog", "a dog"),
        ("sksy asks sks2 sks_ husks", "sksy asks sks2 sks_ husks"),
        ("a sks-like dog", "a sks-like dog"),
        ("the sks’s bone, sks's bone", "the sks’s bone, sks's bone"),
        ("'sks' dog", "'' dog"),
        ("a sks, dog", "a, dog"),
        ("a dog\nsks dog", "a dog\ndog"),
        ("skssks", "skssks"),
        ("äsks sksß", "äsks sksß"),
    ],
)
def test_only_the_whole_word_is_removed(prompt: str, expected: str) -> None:
    assert without_identifier(prompt, ["sks"]) == expected


def test_an_identifier_with_signs_is_taken_as_it_is() -> None:
    assert without_identifier("a <v*> dog (x.y)", ["<v*>", "x.y"]) == "a dog ()"
    assert without_identifier("a xzy dog", ["x.y"]) == "a xzy dog"


def test_of_two_identifiers_the_longer_goes_first() -> None:
    assert without_identifier("a sks.b dog", ["sks", "sks.b"]) == "a dog"


def test_no_identifier_changes_nothing() -> None:
    assert without_identifier("a  dog ", ["", "zwx"]) == "a  dog "
    assert render_with("a {dog}", {"dog": Words("", "dog")}) == "a dog"


@given(st.text(max_size=60), st.text(min_size=1, max_size=8))
def test_removing_twice_is_removing_once_for_plain_words(prompt: str, word: str) -> None:
    plain = "q" + "".join(c for c in word if c.isascii() and c.isalnum())
    once = without_identifier(prompt, [plain])
    assert len(once) <= len(prompt)
    if not re.search(plain, prompt, re.IGNORECASE):  # to which "ſ" is an "s"
        assert once == prompt


@pytest.mark.parametrize("word", ["", "  ", "two words", "a\nb", "{dog}", "<|endoftext|>", "!!", "a" * 65, "a\x1bb"])
def test_what_cannot_be_an_identifier(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_identifier(word)
    assert "\x1b" not in caught.value.message


def test_an_identifier_is_trimmed() -> None:
    assert check_identifier(" sks ") == "sks"
    assert check_identifier("<v1>") == "<v1>"


def test_a_class_noun_may_be_several_words() -> None:
    assert check_class_noun("  stuffed \n animal ") == "stuffed animal"
    assert check_class_noun("犬") == "犬"


@pytest.mark.parametrize("noun", ["", " ", "\x1b", "a" * 81, "{class}", "<|x|>", "..."])
def test_what_cannot_be_a_class_noun(noun: str) -> None:
    with pytest.raises(UsageError):
        check_class_noun(noun)


def test_a_taken_identifier_is_a_collision_in_any_case() -> None:
    with pytest.raises(Collision, match="belongs to 'dog'") as caught:
        check_free("SKS", {"sks": "dog"})
    assert caught.value.exit_code == 6
    check_free("sksy", {"sks": "dog"}, ["dog"])


def test_an_identifier_that_is_the_class_is_a_collision() -> None:
    with pytest.raises(Collision, match="stuffed animal"):
        check_free("Animal", {}, ["stuffed animal"])


SEVERAL = {"dog": Words("sks", "dog"), "cat": Words("zwx", "cat")}


@pytest.mark.parametrize(
    ("template", "of"),
    [
        ("a {identifier} {class} in space", ["dog", "cat"]),
        ("a {dog} in space", ["dog"]),
        ("a zwx cat in space", ["cat"]),
        ("a {dog} next to a zwx cat", ["dog", "cat"]),
        ("a {bird} in space", ["dog", "cat"]),
        ("a skser dog", ["dog", "cat"]),
    ],
)
def test_a_prompt_is_of_the_subjects_that_it_names_or_of_all(template: str, of: list[str]) -> None:
    assert [name for name in SEVERAL if is_of(template, name, SEVERAL)] == of


def test_the_text_to_score_is_without_the_identifier_of_any_subject() -> None:
    assert render_without_for("a {identifier} {class} and a {cat}", "dog", SEVERAL) == "a dog and a cat"
    assert render_without_for("a zwx {class}", "cat", SEVERAL) == "a cat"
