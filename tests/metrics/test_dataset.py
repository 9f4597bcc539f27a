"""A copy of the dataset, as its list file is written, is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.errors import DataError
from dbcli.metrics.dataset import read_dataset
from dbcli.metrics.suites import is_live

LIST = """Classes

subject_name,class
pot,teapot
rex,dog
plush,stuffed animal
../evil,dog
gone,cat

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in a jar'.format(unique_token, class_token),
"a {0} {1} on Bob's table".format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} with a hat'.format(unique_token, class_token),
__import__('os').system('true').format(unique_token, class_token),
]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts_and_classes.txt").write_text(LIST)
    for name in ("pot", "rex", "plush"):
        (tmp_path / name).mkdir()
        for photo in ("01.jpg", "00.jpg", ".DS_Store", "notes.txt"):
            (tmp_path / name / photo).write_bytes(b"")
    return tmp_path


def test_subjects_photos_and_missing_ones(folder: Path) -> None:
    found = read_dataset(folder)
    assert [(subject.name, subject.class_noun, is_live(subject.class_noun)) for subject in found.subjects] == [
        ("pot", "teapot", False),
        ("rex", "dog", True),
        ("plush", "stuffed animal", False),
    ]
    assert [path.name for path in found.subjects[0].photos] == ["00.jpg", "01.jpg"]
    assert found.missing == ("gone",)


def test_prompts_become_templates_and_nothing_is_run(folder: Path) -> None:
    suite = read_dataset(folder).suite
    assert [prompt.template for prompt in suite.prompts_for("teapot")] == [
        "a {identifier} {class} in a jar",
        "a {identifier} {class} on Bob's table",
    ]
    assert [prompt.template for prompt in suite.prompts_for("dog")] == ["a {identifier} {class} with a hat"]


def test_another_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prompts_and_classes.txt") as caught:
        read_dataset(tmp_path)
    assert caught.value.exit_code == 3


def test_a_list_without_prompts_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "prompts_and_classes.txt").write_text("subject_name,class\ndog,dog\n")
    with pytest.raises(DataError, match="1 subjects"):
        read_dataset(tmp_path)
