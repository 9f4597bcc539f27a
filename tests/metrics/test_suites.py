"""Suites: the shipped ones, files of one's own, and what fits which subject."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.errors import ConfigError, PromptError
from dbcli.metrics.suites import (
    DEFAULT_SUITE,
    is_live,
    load_suite,
    plain_suite,
    read_prompts,
    shipped_suites,
    short_label,
)
from dbcli.project.files.names import check_name
from dbcli.project.files.yaml_files import write_yaml


@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suites_load_and_every_prompt_holds_the_subject(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    for class_noun in ("dog", "vase"):
        prompts = suite.prompts_for(class_noun)
        assert all("{identifier} {class}" in prompt.template for prompt in prompts)
        assert len({prompt.template for prompt in prompts}) == len(prompts)
        assert len({prompt.label for prompt in prompts}) == len(prompts)


def test_every_task_of_the_paper_has_a_suite() -> None:
    tasks = {load_suite(name).task for name in shipped_suites()}
    assert tasks >= {
        "recontextualisation", "extreme places", "art rendition", "novel views", "property change",
        "species cross", "emotions", "accessories",
    }  # fmt: skip
    assert DEFAULT_SUITE in shipped_suites()


def test_only_the_living_have_emotions() -> None:
    emotions = load_suite("emotions")
    assert emotions.prompts_for("dog")
    assert emotions.prompts_for("vase") == ()
    assert emotions.prompts_for("happy dog") == emotions.prompts_for("dog")


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("dog", True), ("Corgi dog", True), ("cat", True), ("dog toy", False), ("stuffed bear", False),
     ("vase", False), ("stuffed animal", False), ("teddy bear", False), ("", False)],
)  # fmt: skip
def test_live_subjects_are_told_by_their_noun(noun: str, expected: bool) -> None:
    assert is_live(noun) is expected


@pytest.mark.parametrize(
    ("template", "label"),
    [
        ("a {identifier} {class} in the snow", "in the snow"),
        ("a red {identifier} {class}", "red"),
        ("a photo of a {identifier} {class} at night", "photo of a … at night"),
        ("a {dog} in space", "a dog in space"),
        ("{identifier} {class}", "as itself"),
        ("a {identifier} toy {class}", "a {identifier} toy {class}"),
    ],
)
def test_labels_say_what_differs(template: str, label: str) -> None:
    assert short_label(template) == label


def test_a_name_that_is_nearly_right_gets_a_guess() -> None:
    with pytest.raises(ConfigError, match="Did you mean emotions") as caught:
        load_suite("emotion")
    assert caught.value.exit_code == 2
    assert "quick" in (caught.value.hint or "")


def test_prompts_from_a_file_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "my prompts.txt"
    path.write_bytes("\ufeff# mine\n\n a {dog} in space \r\na sks dog: running\na {dog} in space\n".encode())
    suite = read_prompts(path)
    assert [prompt.template for prompt in suite.prompts_for("dog")] == [
        "a {dog} in space",
        "a sks dog: running",
    ]
    assert suite.name == "my-prompts"
    assert load_suite(path) == suite


@pytest.mark.parametrize(
    ("file", "name"), [("_mine", "mine"), ("..a_", "a_"), ("__", "prompts"), ("long " * 20, "long-" * 7 + "long")]
)
def test_any_file_of_prompts_has_a_name_that_its_scores_can_lie_under(file: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{file}.txt"
    path.write_text("a {identifier} {class}\n")
    assert read_prompts(path).name == name == check_name(name, "suite")


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe\x00"])
def test_a_file_without_prompts_is_a_prompt_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(PromptError) as caught:
        read_prompts(tmp_path / "prompts.txt")
    assert caught.value.exit_code == 3


def test_a_missing_file_of_prompts_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="nowhere.txt"):
        load_suite(tmp_path / "nowhere.txt")


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nany:\n  - a {identifier} {class} at sea\n  - {text: 'a {class}', label: plain}\n")
    prompts = load_suite(path).prompts_for("dog")
    assert [(prompt.label, prompt.task) for prompt in prompts] == [("at sea", "mine"), ("plain", "mine")]


def test_a_suite_written_as_yaml_is_read_back_equal_whatever_its_prompts_hold_in_braces(tmp_path: Path) -> None:
    lines = tmp_path / "own.txt"
    lines.write_text("a {dog} in space\na {identifier} {class} and {my cat}\n")
    written = tmp_path / "own.yaml"
    write_yaml(written, plain_suite(read_prompts(lines)))
    assert load_suite(written) == read_prompts(lines)
    written.write_text("name: own\nfields: [dog]\nany: ['a {dog} in space', 'a {dgo} in space']\n")
    with pytest.raises(ConfigError, match=r"prompt 2: unknown field \{dgo\} \(known: .*, \{dog\}\)"):
        load_suite(written)
    written.write_text("name: own\nfields: dog\nany: ['a {dog} in space']\n")
    with pytest.raises(ConfigError, match="fields: expected a list of names, found 'dog'"):
        load_suite(written)


def test_all_faults_of_a_suite_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: ../bad\nprompts: []\nany:\n  - a {identifer} {class}\n  - 7\nlive: words\n")
    with pytest.raises(ConfigError) as caught:
        load_suite(path)
    for part in ("'prompts'", "name:", "{identifer}", "any, prompt 2", "live: expected a list"):
        assert part in caught.value.message


@pytest.mark.parametrize("content", ["any: [", "- a list", "name: empty\n"])
def test_what_is_no_suite_is_a_config_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match="bad.yaml"):
        load_suite(tmp_path / "bad.yaml")
