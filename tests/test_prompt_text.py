"""Text as CLIP was trained on it."""

from __future__ import annotations

import pytest

from dbcli.prompt_text import cleaned


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("a dog, it’s red", "a dog, it's red"),
        ("a “red” dog", 'a "red" dog'),
        ("a ﬁne ofﬁce", "a fine office"),
        ("１２３ Ａ", "123 A"),
        ("salt &amp; pepper", "salt & pepper"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("&lt;tag&gt;", "<tag>"),
        ("cafÃ©", "café"),
        (" a \t dog\r\n\u3000in  space ", "a dog in space"),
        ("a dog<|endoftext|> in space", "a dog in space"),
        ("a dog &lt;|ENDOFTEXT|&gt; in space", "a dog in space"),
        ("a dog <end_of_text> in space", "a dog in space"),
        ("", ""),
    ],
)
def test_a_text_is_mended_as_in_clips_training(typed: str, read: str) -> None:
    assert cleaned(typed) == read


@pytest.mark.parametrize(
    "text", ["a sks dog in space", 'a {dog}, (red:1.2) "x" [y] <z> 100% #1 a_b-c', "犬 Größe café 🐶"]
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert cleaned(text) == text


def test_cleaning_is_that_of_the_judge() -> None:
    tokenizer = pytest.importorskip("open_clip.tokenizer")
    for text in ("a “dog”, it’s &amp;amp; ﬁne １２", "plain  text", "cafÃ© \x07bell"):
        theirs = tokenizer.whitespace_clean(tokenizer.basic_clean(text))
        assert cleaned(text) == theirs
