"""Words in the vocabulary of a language model: tokens behind a space, and which of them are rare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbcli.diffusion import vocabulary
from tests.diffusion import tiny_z_image


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_z_image.tokenizer().save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.fixture(autouse=True)
def clips_afterwards() -> Iterator[None]:
    yield
    vocabulary.read_with(None)


def test_a_word_is_the_token_that_it_is_in_a_sentence(file: Path) -> None:
    vocabulary.read_with(file)
    (word,) = vocabulary.tokens_of("qzv")
    prompt = tiny_z_image.tokenizer()("a photo of a qzv dog").input_ids
    assert word in prompt and vocabulary.text_of(word) == "qzv"
    # Another word becomes a byte a letter, behind the space.
    assert len(vocabulary.tokens_of("zzz")) == 4


def test_places_are_those_of_the_text(file: Path) -> None:
    vocabulary.read_with(file)
    text = "a sks dog"
    assert [text[start:].split()[0] for _, start in vocabulary.placed_tokens(text)][-2:] == ["sks", "dog"]


def test_rare_words_are_the_last_of_its_own(file: Path) -> None:
    vocabulary.read_with(file)
    found = vocabulary.rare_words()
    assert found[:4] == ["wug", "vqw", "xjk", "qzv"]
    # Of a merge's letters each step is a token of its own.
    assert all(any(word.startswith(one) for word in tiny_z_image.WORDS) for one in found)
    assert all(len(vocabulary.tokens_of(word)) == 1 for word in found)
    assert vocabulary.tokens_of("wug")[0] == vocabulary.known_tokens() - 1


def test_words_that_control_a_conversation_are_no_words(file: Path) -> None:
    vocabulary.read_with(file)
    assert vocabulary.placed_tokens("<|im_end|>") == []


def test_without_a_file_texts_are_read_as_clip_reads_them(file: Path, tmp_path: Path) -> None:
    expected = vocabulary.tokens_of("a sks dog")
    vocabulary.read_with(file)
    assert vocabulary.tokens_of("a sks dog") != expected
    vocabulary.read_with(tmp_path / "none.json")
    assert vocabulary.tokens_of("a sks dog") == expected and vocabulary.known_tokens() == 49_406
