"""What a prompt probably meant."""

from __future__ import annotations

import pytest

from dbcli.project.prompts.identifiers import Words
from dbcli.project.prompts.slips import slips

DOG, BAG, PLUSH = Words("sks", "dog"), Words("xqz", "backpack"), Words("olis", "stuffed animal")
PROJECT = {"rex": DOG, "bag": BAG, "plush": PLUSH}


@pytest.mark.parametrize(
    "prompt",
    [
        "a sks dog in space",
        "A SKS Dog, on grass",
        "a photo of a dog",
        "a house by the sea",
        "an olis stuffed animal",
        "",
    ],
)
def test_a_prompt_that_reads_well_gets_no_line(prompt: str) -> None:
    assert slips(prompt, PROJECT, PROJECT) == []


def test_an_identifier_with_another_subjects_noun_is_told() -> None:
    (line,) = slips("a sks backpack on grass", PROJECT, PROJECT)
    assert "'sks dog' or 'xqz backpack'" in line


def test_an_identifier_without_its_noun_is_told() -> None:
    (line,) = slips("sks in space", {"rex": DOG}, PROJECT)
    assert "'sks dog' was probably meant" in line


def test_an_adjective_between_the_two_is_no_slip() -> None:
    assert slips("a sks happy dog", {"rex": DOG}, PROJECT) == []


def test_a_misspelt_identifier_is_told() -> None:
    (line,) = slips("a skx dog in space", {"rex": DOG}, PROJECT)
    assert "'skx' looks like a typo of 'sks dog'" in line


def test_a_real_word_near_an_identifier_is_left_alone() -> None:
    assert slips("a dog that asks", {"rex": DOG}, PROJECT) == []


def test_a_word_that_the_run_never_learnt_is_told() -> None:
    (line,) = slips("a xqz backpack", {"rex": DOG}, PROJECT)
    assert "never learnt 'xqz'" in line
    assert "bag" in line


@pytest.mark.parametrize("word", ["ab-cd", "q's", "собака", "हिन्दी", "e\u0301zq", "犬", "👩\u200d🚀sks"])
def test_words_of_all_shapes_and_scripts_are_found(word: str) -> None:
    own = {"rex": Words(word, "dog")}
    assert slips(f"a {word} dog in space", own, own) == []
    (alone,) = slips(f"a {word} in space", own, own)
    assert "missing its class noun" in alone
    (other,) = slips(f"a {word} dog", {"bag": BAG}, own)
    assert "never learnt" in other


def test_a_subject_that_was_renamed_is_no_stranger() -> None:
    assert slips("a sks dog", {"dog": DOG}, {"rex": DOG}) == []
