from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbcli.errors import DreamboothError, Refused, UsageError
from dbcli.project.files.names import NAME_PATTERN, check_name, printable, slug, without_control_characters


@pytest.mark.parametrize("name", ["dog", "Dog_2", "0003-dog", "a", "a" * 64, "sks.v1", "console"])
def test_a_plain_name_is_returned_unchanged(name: str) -> None:
    assert check_name(name, "subject") == name


@pytest.mark.parametrize("name", ["..", ".", "../dog", "a/b", "a\\b", "C:dog", "dog\0", "/etc"])
def test_a_name_that_points_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        check_name(name, "subject")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "name", ["", " dog", "dog ", "-dog", ".dog", "_dog", "höhle", "犬", "a" * 65, "dog\n", "d g", "d\x1bg"]
)
def test_any_other_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name, "subject")
    assert caught.value.exit_code == 2
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("name", ["con", "NUL", "Com1", "lpt9.txt", "aux.", "dog."])
def test_names_that_windows_keeps_are_usage_errors(name: str) -> None:
    with pytest.raises(UsageError, match="Windows"):
        check_name(name, "run")


@given(st.text(max_size=80))
def test_every_text_is_a_matching_name_or_an_error_of_ours(text: str) -> None:
    try:
        assert NAME_PATTERN.fullmatch(check_name(text, "subject"))
    except DreamboothError as error:
        assert error.exit_code in (2, 6)
        assert "\x1b" not in error.message


@given(st.text(max_size=80))
def test_the_hinted_slug_is_always_a_good_name(text: str) -> None:
    check_name(slug(text, fallback="class") + "-1a2b3c", "class image set")


def test_slug_keeps_letters_and_digits() -> None:
    assert slug("Stuffed Animal", fallback="class") == "stuffed-animal"
    assert slug("Höhle №5", fallback="class") == "hohle-no5"
    assert slug("犬", fallback="class") == "class"


def test_printable_shows_what_could_act_on_a_terminal() -> None:
    assert printable("a\x1b[31m\u202eb\n") == "a\\u001b[31m\\u202eb\\u000a"
    assert printable("x" * 100, limit=10) == "x" * 9 + "…"


def test_control_characters_go_and_white_space_is_folded() -> None:
    assert without_control_characters(" a\r\n b\tc\x00\x1b[0m\u202e ") == "a b c[0m"
