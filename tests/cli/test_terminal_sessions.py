"""What a person sees and types on a real terminal: guided init, interactive drawing, Ctrl-C; at 80 and 120 columns."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are a Unix thing", allow_module_level=True)

from tests.cli.made_projects import command
from tests.cli.terminals import CTRL_C, CTRL_D, ENTER, TAB, UP, Terminal
from tests.reliability.processes import ForkServer

Run = Callable[..., Any]
COLOUR_CODE = re.compile(rb"\x1b\[(?:3|4|9|10)\d(?:;[\d;]*)?m")


def test_init_lists_the_bases_checks_each_answer_at_once_and_asks_no_more(tmp_path: Path, base_folder: Path) -> None:
    spaced = tmp_path / "my bases" / "small"
    spaced.parent.mkdir()
    spaced.symlink_to(base_folder, target_is_directory=True)
    (tmp_path / "taken").write_text("a file")
    with Terminal(["init", "--no-gpu"], tmp_path, columns=120) as terminal:
        terminal.wait_for("Which folder")
        terminal.type("taken" + ENTER)
        terminal.wait_for("is a file.")
        terminal.wait_for("Which folder", times=2)
        terminal.type("Rex & Co" + ENTER)
        terminal.wait_for("Which base [tiny]")
        for choice in ("tiny ", "sd-v1-4 ", "Hub id", "diffusers folder", ".safetensors"):
            assert choice in terminal.text
        terminal.type("sd-v9" + ENTER)
        terminal.wait_for("is not a base model")
        terminal.wait_for("Which base [tiny]", times=2)
        terminal.type(f"'{spaced}' " + ENTER)
        assert terminal.end() == 0
        assert "Profile lora" in terminal.text
        assert "Next: cd 'Rex & Co'; dreambooth add-subject" in terminal.text
    settings = (tmp_path / "Rex & Co" / "dreambooth.yaml").read_text()
    assert "profile: lora" in settings
    assert str(base_folder.resolve()) in settings


def test_the_line_of_the_readme_stops_at_no_question(tmp_path: Path) -> None:
    with Terminal(["init", "mine", "--base", "tiny"], tmp_path) as terminal:
        assert terminal.end() == 0
        assert "Which" not in terminal.text
    assert "profile: tiny" in (tmp_path / "mine" / "dreambooth.yaml").read_text()


def test_train_asks_for_no_subject_where_there_is_none(server: ForkServer, tmp_path: Path) -> None:
    command("init", tmp_path / "p", "--base", "tiny", "--quiet")
    with Terminal(["train"], tmp_path / "p", server=server) as terminal:
        assert terminal.end() == 2
        assert "There is no subject to train yet." in terminal.text
        assert "dreambooth add-subject" in terminal.text
        assert "Which subject" not in terminal.text


def test_add_subject_asks_checks_each_answer_and_takes_dropped_files(
    server: ForkServer, project: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Rex & Co"
    photos.rename(folder)
    (tmp_path / "empty").mkdir()
    with Terminal(["add-subject"], project, server=server, columns=120) as terminal:
        terminal.wait_for("Short name")
        for wrong, said in (("dog", "already exists"), ("Dog", "only in case"), ("my dog", "cannot be used")):
            terminal.type(wrong + ENTER)
            terminal.wait_for(said)
        terminal.type("rex" + ENTER)
        terminal.wait_for("Where are its photos")
        for wrong, said in (("nowhere", "There is no file or folder"), (str(tmp_path / "empty"), "no photo in")):
            terminal.type(wrong + ENTER)
            terminal.wait_for(said)
        terminal.type(str(folder).replace(" ", "\\ ").replace("&", "\\&") + " " + ENTER)
        terminal.wait_for("What kind of thing is rex")
        terminal.type("{x}" + ENTER)
        terminal.wait_for("another meaning in a prompt")
        terminal.type("dog" + ENTER)
        assert terminal.end() == 0
        assert "Subject rex: 3 photos of a dog" in terminal.text
        assert "Next: dreambooth train --subject rex --token" in terminal.text


def test_ctrl_c_at_a_question_ends_it_and_makes_nothing(tmp_path: Path) -> None:
    with Terminal(["init"], tmp_path) as terminal:
        terminal.wait_for("Which folder")
        terminal.type(CTRL_C)
        assert terminal.end() in (2, 130)
    assert list(tmp_path.iterdir()) == []


def test_interactive_drawing_from_completion_to_ctrl_d(trained_project: Path) -> None:
    with Terminal(["generate", "--interactive", "-n", "2"], trained_project) as terminal:
        terminal.wait_for("0001-dog ›")
        terminal.type("a {d" + TAB)
        terminal.wait_for("a {dog}")
        terminal.type(" in space" + ENTER)
        shown = terminal.wait_for("seed 1\n")
        assert "▀▀▀▀" in shown
        assert len(terminal.colours()) > 50
        assert len(list((trained_project / "runs" / "0001-dog" / "images").glob("*.png"))) == 2
        terminal.type(":seed 7" + ENTER)
        terminal.wait_for("seed 7 · steps 2 · n 2")
        terminal.type(UP + UP + ENTER)
        terminal.wait_for("seed 8\n")
        # Far more steps than could be done meanwhile: only Ctrl-C can end this drawing.
        terminal.type(":steps 1000" + ENTER + ":n 64" + ENTER + ":again" + ENTER)
        terminal.wait_for("Generating 64 images")
        terminal.type(CTRL_C)
        terminal.wait_for("Stopped.")
        terminal.type(":steps 1" + ENTER + ":n 1" + ENTER + ":show off" + ENTER + ":bad" + ENTER)
        terminal.wait_for("There is no command :bad.")
        terminal.wait_for_prompt("0001-dog ›")
        terminal.type("half a line" + CTRL_C)
        terminal.type("a {dog} at the end" + ENTER)
        terminal.wait_for("-0000.png  seed 7", times=2)
        terminal.wait_for_prompt("0001-dog ›")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert "half a line" not in (trained_project / ".cache" / "prompts.history").read_text()
    assert "a {dog} in space" in (trained_project / ".cache" / "prompts.history").read_text()


@pytest.mark.parametrize(("columns", "colour"), [(80, True), (120, False)])
def test_training_shows_two_lines_that_fit(server: ForkServer, project: Path, columns: int, colour: bool) -> None:
    words = [
        "train",
        "--subject",
        "dog",
        "--token",
        "sks",
        "--steps",
        "3",
        "--set=prior.images=1",
        "--set=prior.steps=1",
    ]
    with Terminal(words, project, server=server, columns=columns, colour=colour) as terminal:
        assert terminal.end() == 0
        assert bool(COLOUR_CODE.search(terminal.raw)) is colour
        bar = next(number for number, line in enumerate(terminal.lines) if line.startswith("Training 0001-dog"))
        assert "3/3" in terminal.lines[bar]
        numbers = terminal.lines[bar + 1]
        assert re.match(r"  loss \d\.\d{4} prior \d\.\d{4} · [\d.]+ it/s · [\d.]+ GB  [▁▂▃▄▅▆▇█]{3}$", numbers), numbers
        assert any(line.startswith("Next: dreambooth generate") for line in terminal.lines)


@pytest.mark.parametrize("columns", [80, 120])
def test_words_are_never_broken_in_the_middle(server: ForkServer, project: Path, columns: int) -> None:
    with Terminal(["train", "--subject", "dog"], project, server=server, columns=columns) as terminal:
        terminal.wait_for("Which rare word is the identifier of dog [")
        terminal.answer("dog")
        terminal.wait_for("Which rare word", times=2)
        terminal.type(CTRL_C)
        assert terminal.end() in (2, 130)
        assert all(len(line) <= columns for line in terminal.lines)
        assert "shares a token with the class noun 'dog'" in terminal.text.replace("\n", " ")


def test_a_stopped_sweep_is_proposed_again_and_says_what_is_left(server: ForkServer, project: Path) -> None:
    shared = "{train: {steps: 100000}, prior: {enabled: false}, draw: {steps: 1}}"
    grid = "{train.learning_rate: [1e-4, 2e-4]}"
    prompts = "{prompts: ['a {identifier} {class}'], count: 1}"
    text = f"name: long\nsubject: dog\nidentifier: sks\nsettings: {shared}\njudge: none\n"
    (project / "long.yaml").write_text(f"{text}pictures: {prompts}\ngrid: {grid}\n")
    with Terminal(["sweep", "long.yaml"], project, server=server) as terminal:
        terminal.wait_for("[1/4] Training 0001-dog")
        assert "200,000 training steps in 2 runs, 2 images in 2 cells" in terminal.text
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert "dreambooth sweep long.yaml" in terminal.text
    with Terminal([], project, server=server) as terminal:
        assert terminal.end() == 0
        assert "Next: long stopped with 0 of 2 cells finished\n  dreambooth sweep long.yaml" in terminal.text
        assert "--resume" not in terminal.text
