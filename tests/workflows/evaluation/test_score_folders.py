"""The folders of evaluations: one each, with names that every system takes."""

from __future__ import annotations

import pytest

from dbcli.errors import UsageError
from dbcli.project.files.names import check_name
from dbcli.workflows.evaluation.score_folders import check_suite_name, images_folder, scores_folder

LONG = "a-list-of-prompts-whose-name-says-all-that-is-in-it-and-more-yet"


def folders(suite: str) -> list[str]:
    return [
        scores_folder(suite, checkpoint, masked=masked, with_identifier=with_identifier)
        for checkpoint in (None, 100, 1_000_000)
        for masked in (False, True)
        for with_identifier in (False, True)
    ]


def test_a_short_name_is_kept_whole() -> None:
    assert images_folder("quick", 200) == "quick-step-200"
    assert scores_folder("quick", 200, masked=True, with_identifier=True) == "quick-step-200-masked-with-identifier"
    assert scores_folder("quick", None, masked=False, with_identifier=False) == "quick"


@pytest.mark.parametrize("length", [1, 27, 28, 29, 55, 60, 64])
def test_every_folder_of_a_suite_has_a_name_of_its_own_that_can_be_one(length: int) -> None:
    found = folders(LONG[:length]) + folders(LONG[: length - 1] + "x")
    assert len(set(found)) == len(found) == 24
    assert [check_name(one, "suite") for one in found] == found


@pytest.mark.parametrize("name", ["interference", "Interference", "interference-with-2", "quick-masked", "a-step-100"])
def test_a_suite_is_not_named_like_another_evaluation(name: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be named '{name}'"):
        check_suite_name(name)


@pytest.mark.parametrize("name", ["quick", "masked", "step-100", "unmasked", "my-interference", "stepping-stones"])
def test_other_names_are_free(name: str) -> None:
    check_suite_name(name)
