"""One word proposed everywhere, and several subjects given theirs in one command."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbcli.project.files.layout import Layout
from dbcli.project.subjects.subject_store import load_subject
from dbcli.workflows.subjects.proposed_words import proposed_words
from tests.project import photo_makers
from tests.reliability.processes import ForkServer
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
FAST = ["--steps", 1, "--set=prior.enabled=false"]
BOTH = ("--subject", "wolf,shades")


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def two(run: Run, tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a dog that is called mwf, and a wolf and shades without a word, added in that order."""
    monkeypatch.chdir(tmp_path)
    assert run("init", "myproj", "--base", base_folder).code == 0
    monkeypatch.chdir(tmp_path / "myproj")
    for number, (name, noun, *words) in enumerate(
        [("dog", "dog", "--token", "mwf"), ("wolf", "wolf"), ("shades", "glasses")]
    ):
        photo_makers.save(tmp_path / name / "0.png", photo_makers.plain((40 * number, 90, 50)))
        assert run("add-subject", name, "--class", noun, tmp_path / name, *words).code == 0
    return tmp_path / "myproj"


def word_of(project: Path, name: str) -> str | None:
    return load_subject(Layout(project), name).identifier


def proposed(project: Path, name: str) -> str:
    layout = Layout(project)
    return proposed_words(layout, load_subject(layout, name))[0]


def test_the_same_free_word_is_proposed_by_every_command(run: Run, two: Path, tmp_path: Path) -> None:
    wolf, shades = proposed(two, "wolf"), proposed(two, "shades")
    assert len({wolf, shades, "mwf"}) == 3
    steps = {step["command"] for step in run("--json").document["next"]}
    assert steps == {
        "dreambooth train --subject wolf --token " + wolf,
        f"dreambooth train --subject shades --token {shades}",
    } | {"dreambooth train --subject dog"}
    assert f"dreambooth train --subject wolf --token {wolf}\n" in run("train", "--subject", "wolf").err
    whole = f"dreambooth train --subject wolf,shades --token wolf={wolf} --token shades={shades}"
    assert whole in run("train", *BOTH).err
    taken = run("train", "--subject", "wolf", "--token", "mwf")
    assert f"take one of {wolf}, " in taken.err
    assert (
        f"Next: dreambooth train --subject shades --token {shades}"
        in run("subjects", "set", "shades", "--class", "cup").out
    )
    photo_makers.save(tmp_path / "fox" / "0.png", photo_makers.plain((1, 2, 3)))
    next_line = re.search(r"Next: (.*)", run("add-subject", "fox", "--class", "fox", tmp_path / "fox").out)
    assert next_line is not None
    assert next_line[1].endswith(f"--token {proposed(two, 'fox')}")
    # A newcomer, whatever its name, does not change what was proposed before.
    assert (proposed(two, "wolf"), proposed(two, "shades")) == (wolf, shades)


def test_what_suggest_measured_is_what_is_proposed_from_then_on(run: Run, two: Path) -> None:
    assert run("subjects", "set", "shades", "--token", "tich").code == 0
    words = run("tokens", "suggest", "-n", 50, "--json").document["words"]
    strengths = [one["strength"] for one in words]
    assert strengths == sorted(strengths)
    assert proposed(two, "wolf") == words[0]["word"]
    assert f"--token {words[0]['word']}" in run("train", "--subject", "wolf").err
    # Measured beside "wolf", the noun of the subject that waits for a word: not of the first subject.
    assert "wolf" in (two / ".cache" / "word-strengths.json").read_text()


def test_on_the_embedded_base_the_first_word_is_the_weakest_that_was_measured_when_it_was_made(
    run: Run, two: Path
) -> None:
    settings = two / "dreambooth.yaml"
    settings.write_text(yaml.safe_dump({"base": "tiny"}))
    assert run("subjects", "set", "wolf", "--class", "cat").code == 0
    assert proposed(two, "wolf") == "ibc"


def test_two_subjects_get_their_identifiers_in_one_command(run: Run, two: Path) -> None:
    done = run("train", *BOTH, "--token", "wolf=sito", "--token", "shades=tich", *FAST, "--json")
    assert done.code == 0, done.err
    learnt = {one["name"]: one["identifier"] for one in done.document["subjects"]}
    assert learnt == {"wolf": "sito", "shades": "tich"}
    assert (word_of(two, "wolf"), word_of(two, "shades")) == ("sito", "tich")


@pytest.mark.parametrize(
    ("tokens", "code", "said"),
    [
        (["sito"], 2, "--token wolf=sito --token shades="),
        (["wolf=sito", "shadez=tich"], 2, "→ --token shades=tich"),
        (["wolf=sito", "wolf=tich"], 2, "gives wolf two identifiers, sito and tich"),
        (["wolf=sito", "shades=sito"], 6, "is the identifier 'sito' of the subject 'wolf'"),
        (["wolf=sito", "shades=mwf"], 6, "is the identifier 'mwf' of the subject 'dog'"),
        (["wolf=sito"], 2, "--token shades="),
    ],
)
def test_a_slip_in_one_identifier_gives_none_of_them(
    run: Run, two: Path, tokens: list[str], code: int, said: str
) -> None:
    ended = run("train", *BOTH, *[f"--token={token}" for token in tokens], *FAST)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert (word_of(two, "wolf"), word_of(two, "shades")) == (None, None)
    assert not list((two / "runs").glob("0*"))


def test_what_the_error_proposes_for_two_subjects_can_be_typed(run: Run, two: Path) -> None:
    hint = run("train", *BOTH).err.split("→ dreambooth ")[1].split()
    assert run(*hint, *FAST).code == 0


def test_a_word_may_pass_from_one_subject_to_the_other(run: Run, two: Path) -> None:
    for name, word in (("wolf", "sito"), ("shades", "tich")):
        assert run("subjects", "set", name, "--word", word).code == 0
    assert run("train", *BOTH, "--token=wolf=tich", "--token=shades=sito", *FAST).code == 0
    assert (word_of(two, "wolf"), word_of(two, "shades")) == ("tich", "sito")


def test_a_subject_is_given_a_word_and_another_class(run: Run, two: Path) -> None:
    done = run("subjects", "set", "wolf", "--token", "sito", "--class", "husky dog")
    assert done.code == 0, done.err
    assert "wolf: sito husky dog" in done.out
    assert load_subject(Layout(two), "wolf").words.text == "sito husky dog"
    assert run("subjects", "set", "wolf", "--class", "mwf").code == 6
    assert run("subjects", "set", "wolf", "--token", "glasses").code == 6
    assert load_subject(Layout(two), "wolf").words.text == "sito husky dog"


def test_an_existing_subject_points_to_the_command_that_changes_its_words(run: Run, two: Path, tmp_path: Path) -> None:
    refused = run("add-subject", "wolf", "--class", "fox", "--token", "sito", tmp_path / "wolf")
    assert refused.code == 6
    line = re.search(r"→ dreambooth (subjects set .*?) gives", refused.err)
    assert line is not None
    assert run(*line[1].split()).code == 0
    assert load_subject(Layout(two), "wolf").words.text == "sito fox"


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a Unix thing")
def test_a_terminal_asks_for_each_word_checks_it_at_once_and_asks_again(server: ForkServer, two: Path) -> None:
    from tests.cli.terminals import ENTER, Terminal

    wolf, shades = proposed(two, "wolf"), proposed(two, "shades")
    with Terminal(["train", *BOTH, *map(str, FAST)], two, server=server) as terminal:
        terminal.wait_for(f"identifier of wolf [{wolf}]")
        terminal.type("mwf" + ENTER)
        terminal.wait_for("cannot be used")
        terminal.wait_for(f"identifier of wolf [{wolf}]", times=2)
        terminal.type(ENTER)
        terminal.wait_for(f"identifier of shades [{shades}]")
        terminal.type(ENTER)
        assert terminal.end() == 0
    assert (word_of(two, "wolf"), word_of(two, "shades")) == (wolf, shades)
